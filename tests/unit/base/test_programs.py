"""Where programs are for each way to install."""

from pathlib import Path

import pytest

from usercontainerd.base.programs import Programs, find_prefix, find_programs

MODULE = "usercontainerd/base/programs.py"


@pytest.mark.parametrize(
    ("site", "prefix"),
    [
        ("/usr/lib/python3/dist-packages", "/usr"),
        ("/usr/lib/python3.14/site-packages", "/usr"),
        ("/usr/lib64/python3.14/site-packages", "/usr"),
        ("/usr/local/lib/python3.13/dist-packages", "/usr/local"),
        ("/home/alice/.local/lib/python3.13/site-packages", "/home/alice/.local"),
        ("/home/alice/my venv/lib/python3.13/site-packages", "/home/alice/my venv"),
    ],
)
def test_a_prefix_has_its_programs(site: str, prefix: str) -> None:
    assert find_prefix(site) == prefix
    programs = find_programs(f"{site}/{MODULE}")
    assert programs.launch == f"{prefix}/libexec/usercontainerd/launch"
    assert programs.command == f"{prefix}/bin/usercontainer"


@pytest.mark.parametrize(
    "site", ["/srv/target", "/srv/lib/packages", "/srv/python3/site-packages", "/site-packages"]
)
def test_elsewhere_there_is_no_prefix(site: str) -> None:
    assert find_prefix(site) is None
    assert find_programs(f"{site}/{MODULE}").directory == "/usr/libexec/usercontainerd"


def test_a_checkout_is_its_own(tmp_path: Path) -> None:
    (tmp_path / "libexec").mkdir()
    (tmp_path / "libexec/launch").touch()
    programs = find_programs(str(tmp_path / MODULE))
    assert programs.launch == f"{tmp_path}/libexec/launch"
    assert programs.command == f"{tmp_path}/bin/usercontainer"


def test_a_checkout_of_that_name_is_no_prefix() -> None:
    assert Programs("/src/libexec/libexec").command == "/src/libexec/bin/usercontainer"
