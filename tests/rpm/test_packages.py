"""The packages themselves: that they build, everywhere the same, and what is in them."""

from __future__ import annotations

import re
import sys
from fnmatch import fnmatchcase
from pathlib import Path

from rpmlib.building import DEBIAN

from tests.support.containers import run
from tests.support.packages import CHECKOUT, NAMES, Built, hash_file

SPEC = CHECKOUT / "packaging/rpm/usercontainerd.spec"
PYTHON = f"python{sys.version_info[0]}.{sys.version_info[1]}"  # the machine's, for which packages are built
RPMLINT = (
    *("rpmlint", "--config", str(CHECKOUT / "packaging/rpm/debian/rpmlint.toml")),
    *("--rpmlintrc", str(CHECKOUT / "packaging/rpm/usercontainerd.rpmlintrc")),
)


# Whose directories are on Fedora; the package named requires the owner itself.
OWNERS = {
    "/usr/lib/systemd/user*": "systemd",
    "/usr/share/dbus-1/*": "dbus-common",
    "/usr/lib/python3.*/site-packages": "python(abi)",
    "/usr/share/selinux/*": "selinux-policy-targeted",
    "/var/lib/selinux/*": "selinux-policy-targeted",
    **dict.fromkeys(
        (
            *("/etc", "/usr/bin", "/usr/libexec", "/usr/share", "/usr/share/man/man?", "/usr/share/doc"),
            *(
                "/usr/share/licenses",
                "/usr/share/bash-completion/completions",
                "/usr/share/zsh/site-functions",
            ),
            "/usr/share/fish/vendor_completions.d",
        ),
        "filesystem",
    ),
}


def query(package: Path, what: str) -> list[str]:
    return run("rpm", "--query", "--package", f"--{what}", str(package)).stdout.split("\n")[:-1]


def test_the_unit_tests_passed_in_the_build(built: Built) -> None:
    [line] = re.findall(r"^(\d+) passed.*$", built.log, re.MULTILINE)
    assert int(line) > 2000
    assert re.search(r"^\d+ modules were imported from /", built.log, re.MULTILINE)


def test_two_builds_are_the_same(built: Built) -> None:
    assert [path.name for path in built.newer] == [path.name for path in built.again]
    different = [
        path.name
        for path, again in zip(built.newer, built.again, strict=True)
        if hash_file(path) != hash_file(again)
    ]
    assert different == []


def test_rpmlint_has_nothing_to_say(built: Built) -> None:
    done = run(*RPMLINT, *map(str, built.newer), str(SPEC), check=False)
    assert " 0 errors, 0 warnings" in done.stdout, done.stdout


def test_what_it_requires(built: Built) -> None:
    found = {line.split(" ")[0] for line in query(built.find("usercontainerd"), "requires")}
    python = {
        f"{PYTHON}dist({name})" for name in ("dbus-next", "pyroute2", "requests", "systemd-python", "toml")
    }
    programs = {
        "crun",
        "passt",
        "shadow-utils",
        "shadow-utils-subid",
        "containers-common",
        "systemd",
        "dbus-common",
    }
    assert python | programs <= found


def test_docker_stands_aside_for_the_others(built: Built) -> None:
    conflicts = query(built.find("usercontainerd-docker"), "conflicts")
    assert {"docker", "docker-ce", "moby-engine", "podman-docker"} <= set(conflicts)
    assert "podman" not in conflicts
    assert query(built.find("usercontainerd-podman"), "conflicts") == ["podman"]


def test_files_are_those_of_a_system(built: Built) -> None:
    for name in NAMES:
        for line in query(
            built.find(name),
            "queryformat=[%{FILEMODES:perms} %{FILEUSERNAME} %{FILEGROUPNAME} %{FILENAMES}\\n]",
        ):
            mode, user, group, path = line.split(" ", 3)
            assert (user, group) == ("root", "root"), line
            assert mode[5] == mode[8] == "-" and "s" not in mode, line
            assert path.startswith(("/usr/", "/etc/usercontainerd", "/var/lib/selinux/")), line


def test_every_directory_has_an_owner(built: Built) -> None:
    for name in NAMES:
        package = built.find(name)
        lines = query(package, "queryformat=[%{FILEMODES:perms} %{FILENAMES}\\n]")
        own = {line.split(" ", 1)[1] for line in lines if line.startswith("d")}
        needed = {str(Path(line.split(" ", 1)[1]).parent) for line in lines} - own
        required = {line.split(" ")[0] for line in query(package, "requires")} | {"filesystem"}
        if "usercontainerd" in required:  # with all that it requires
            required |= {line.split(" ")[0] for line in query(built.find("usercontainerd"), "requires")}
        for directory in needed:
            owner = next(
                (owner for pattern, owner in OWNERS.items() if fnmatchcase(directory, pattern)), None
            )
            assert owner in required, f"{name}: {directory} is {owner}'s"


def test_scripts_keep_their_interpreter_and_know_no_checkout(built: Built) -> None:
    names = query(built.find("usercontainerd"), "list")
    scripts = [name for name in names if name.startswith(("/usr/bin/", "/usr/libexec/usercontainerd/"))]
    assert len(scripts) > 8
    run(
        "sh",
        "-c",
        'rpm2cpio "$1" | (mkdir /tmp/unpacked && cd /tmp/unpacked && cpio -id --quiet)',
        "sh",
        str(built.find("usercontainerd")),
    )
    for name in scripts:
        text = Path(f"/tmp/unpacked{name}").read_text()
        assert text.startswith("#!/usr/bin/python3 -IS\n"), name
        assert f"/usr/lib/{PYTHON}/site-packages" in text, name
        assert "checkout" not in text, name


def test_the_specification_is_read_everywhere() -> None:
    def parse(*definitions: str) -> str:
        macros = [word for each in (f"_debian {DEBIAN}", *definitions) for word in ("--define", each)]
        return run("rpmspec", "--parse", *macros, "--load", str(DEBIAN / "macros"), str(SPEC)).stdout

    fedora, rhel = parse("fedora 43"), parse("rhel 10")
    assert "Recommends:     python3-rich" in fedora
    assert "%pytest" not in fedora + rhel
    assert ("pytest" in fedora, "pytest" in rhel) == (True, False)  # RHEL has no Hypothesis
    assert "%{" not in re.sub(r"(?m)^#.*$", "", fedora + rhel)
