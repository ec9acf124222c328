from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.base.names import (
    check_container_name,
    container_name,
    is_container_name,
    is_plain_name,
    is_template_name,
    runtime_id,
    split_instance,
    unit_name,
)

GOOD = ("web", "a", "0", "Web_1.x-y", "web@blue", "web@1", "web@_x", "a" * 200, "x.service")
BAD = (
    "",
    "-web",
    ".web",
    "_x",
    "@",
    "@x",
    "web@",
    "web@a@b",
    "a b",
    "a/b",
    "a\n",
    "\n",
    "é",
    "a\\x2db",
    "web@a/b",
    "a" * 201,
    "a%i",
    "a:b",
)


@pytest.mark.parametrize("name", GOOD)
def test_good_names(name: str) -> None:
    assert check_container_name(name) == name
    assert unit_name(name) == f"container@{name}.service"
    assert container_name(unit_name(name)) == name


@pytest.mark.parametrize("name", BAD)
def test_bad_names(name: str) -> None:
    assert not is_container_name(name)
    with pytest.raises(InvalidArgument) as caught:
        check_container_name(name)
    assert "\n" not in str(caught.value)
    with pytest.raises(InvalidArgument):
        unit_name(name)
    assert container_name(f"container@{name}.service") is None


def test_a_template_s_name_gets_a_hint() -> None:
    with pytest.raises(InvalidArgument, match="is a template"):
        check_container_name("web@")
    assert is_template_name("web@")
    assert not any(map(is_template_name, ("web", "@", "web@@", "-@", "")))


@pytest.mark.parametrize(
    "unit",
    ["web.service", "container@web.slice", "container@.service", "container@web", "", "xcontainer@a.service"],
)
def test_other_units_are_no_containers(unit: str) -> None:
    assert container_name(unit) is None


def test_instances() -> None:
    assert split_instance("web") == ("web", None)
    assert split_instance("web@blue") == ("web", "blue")
    assert split_instance("web@") == ("web", "")


@pytest.mark.parametrize("name", GOOD)
def test_crun_takes_every_name(name: str) -> None:
    assert re.fullmatch(r"[a-zA-Z0-9_+-][a-zA-Z0-9_+.-]*", runtime_id(name))
    assert "+" not in name  # so that no two containers are one to crun


@given(st.text(max_size=10))
def test_a_name_is_plain_exactly_by_docker_s_rule(text: str) -> None:
    assert is_plain_name(text) == bool(re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", text))
