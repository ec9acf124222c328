"""The RPM specification lists what is installed and nothing else: said here in a moment, not by a build."""

from __future__ import annotations

import configparser
import re
from fnmatch import fnmatchcase
from pathlib import Path

from usercontainerd.engine.setup.installation import RULES, Kind, select_names

TOP = Path(__file__).resolve().parents[3]
SPEC = (TOP / "packaging/rpm/usercontainerd.spec").read_text()
MACROS = {
    "name": "usercontainerd",
    "_bindir": "/usr/bin",
    "_libexecdir": "/usr/libexec",
    "_datadir": "/usr/share",
    "_mandir": "/usr/share/man",
    "_userunitdir": "/usr/lib/systemd/user",
    "_systemdusergeneratordir": "/usr/lib/systemd/user-generators",
    "bash_completions_dir": "/usr/share/bash-completion/completions",
    "zsh_completions_dir": "/usr/share/zsh/site-functions",
    "fish_completions_dir": "/usr/share/fish/vendor_completions.d",
}


def list_patterns(package: str) -> list[str]:
    """The paths below ``%files PACKAGE``, with macros expanded; those of macros that are not known stay out."""
    section = re.split(rf"^%files{package}$", SPEC, flags=re.MULTILINE)[1]
    lines = re.split(r"^%(?:files|changelog)", section, flags=re.MULTILINE)[0].splitlines()
    expanded = [re.sub(r"%\{(\w+)\}", lambda match: MACROS.get(match[1], match[0]), line) for line in lines]
    return [line for line in expanded if line.startswith("/")]


def matches(path: str, pattern: str) -> bool:
    return path.startswith(pattern) if pattern.endswith("/") else fnmatchcase(path, pattern)


def list_installed() -> list[str]:
    return [
        f"/usr/{rule.target}/{name}"
        for rule in RULES
        if rule.kind is not Kind.LOGIN_UNIT  # stands in for a generator, which a package has
        for name in select_names(
            rule, [path.name for path in (TOP / rule.source).iterdir() if path.is_file()]
        )
    ]


def test_every_installed_file_is_in_the_package() -> None:
    patterns = list_patterns(" -f %{pyproject_files}")
    for path in list_installed():
        assert any(matches(path, pattern) for pattern in patterns), f"{path} is not in %files"


def test_every_line_of_the_package_is_of_some_file() -> None:
    installed = list_installed()
    for pattern in list_patterns(" -f %{pyproject_files}"):
        assert any(matches(path, pattern) for path in installed), (
            f"%files has {pattern}, which nothing installs"
        )


def test_optional_python_packages_are_recommended() -> None:
    configuration = configparser.ConfigParser()
    configuration.read(TOP / "setup.cfg")
    for line in configuration["options.extras_require"]["all"].split("\n"):
        if name := line.partition(";")[0].strip():
            assert re.search(rf"^Recommends:.*\bpython3-{name}\b", SPEC, re.MULTILINE), name


def test_whatever_is_a_docker_is_in_conflict() -> None:
    assert list_patterns(" docker")[0] == "/usr/bin/docker"
    assert list_patterns(" podman")[0] == "/usr/bin/podman"
    for name in ("docker", "podman"):
        assert (TOP / "compat" / name).is_file()
        assert re.search(rf"^Conflicts: +{name}$", SPEC, re.MULTILINE)
