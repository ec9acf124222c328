"""``usercontainerd.__version__`` is the only place of the version; what has to repeat it says the same."""

from __future__ import annotations

import configparser
import glob
import os
import re

import pytest

from usercontainerd import __version__

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__)))))


def read(name: str) -> str:
    with open(f"{TOP}/{name}", encoding="utf-8") as file:
        return file.read()


def test_is_a_release_number() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


def test_package_metadata_take_it_from_there() -> None:
    configuration = configparser.ConfigParser()
    configuration.read(f"{TOP}/setup.cfg", encoding="utf-8")
    assert configuration["metadata"]["version"] == "attr: usercontainerd.__version__"


def read_release_date() -> str:
    """Of the newest version in NEWS.md."""
    first = next(line for line in read("NEWS.md").splitlines() if line.startswith("## "))
    match = re.fullmatch(rf"## {re.escape(__version__)} \((unreleased|\d{{4}}-\d\d-\d\d)\)", first)
    assert match, f"NEWS.md does not begin with {__version__}"
    return match[1]


@pytest.mark.parametrize("page", sorted(os.listdir(f"{TOP}/man")))
def test_manual_pages_have_it_and_its_date(page: str) -> None:
    (title,) = re.findall(r"^\.TH .*$", read(f"man/{page}"), re.MULTILINE)
    date = read_release_date().replace("unreleased", "")
    assert f'"{date}" "usercontainerd {__version__}"' in title


def test_rpm_has_it() -> None:
    for path in glob.glob(f"{TOP}/packaging/rpm/*.spec"):
        with open(path, encoding="utf-8") as file:
            (version,) = re.findall(r"^Version:\s*(\S+)$", file.read(), re.MULTILINE)
        assert version == __version__


def test_packages_agree_on_what_they_are() -> None:
    configuration = configparser.ConfigParser()
    configuration.read(f"{TOP}/setup.cfg", encoding="utf-8")
    metadata = configuration["metadata"]
    assert metadata["license"] == metadata["license_expression"] == "LGPL-2.1-or-later"
    for path in glob.glob(f"{TOP}/packaging/rpm/*.spec"):
        with open(path, encoding="utf-8") as file:
            text = file.read()
        (url,) = re.findall(r"^URL:\s*(\S+)$", text, re.MULTILINE)
        assert metadata["project_urls"].split() == ["Homepage", "=", url]
        assert set(re.findall(r"^License:\s*(\S+)$", text, re.MULTILINE)) == {metadata["license"]}


def test_addresses_that_are_yet_to_be_confirmed_are_in_few_places() -> None:
    domain = ".".join(("usercontainer", "org"))
    found = set()
    for directory, names, files in os.walk(TOP):
        names[:] = [name for name in names if not name.startswith((".", "__")) and ".egg-info" not in name]
        for name in files:
            path = os.path.join(directory, name)
            with open(path, encoding="utf-8", errors="replace") as file:
                if re.search(rf"{re.escape(domain)}\b", file.read()):
                    found.add(os.path.relpath(path, TOP))
    assert found == {"setup.cfg", "packaging/rpm/usercontainerd.spec", "docs/releasing.md"}


def test_licence_is_the_one_that_tools_look_for() -> None:
    # GitHub, setuptools and rpm want LICENSE, REUSE wants the other; a link would dangle where rpm copies it.
    assert read("LICENSE") == read("LICENSES/LGPL-2.1-or-later.txt")
