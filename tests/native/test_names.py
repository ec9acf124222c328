"""Names as on Fedora: the same registries.conf means the same to us and to the real Podman; mirrors are asked."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.containers import run, wait_until
from tests.support.fakeregistry import FakeRegistry, build_tar, file

NOBODY = "127.0.0.1:1"  # where nobody listens
TRIED = re.compile(r"Trying to pull (\S+?)\.\.\.")


_MEANING = """
import os, sys
from usercontainerd.base.errors import UsercontainerError
from usercontainerd.cli.call import Call
from usercontainerd.cli.options import Options
from usercontainerd.engine.endpoints import choose_meaning
from usercontainerd.engine.images import read_registries
from usercontainerd.oci.reference import parse_reference

configuration = read_registries(Call("pull", Options(), dict(os.environ)).context())
try:
    meaning, _ = choose_meaning(configuration, parse_reference(sys.argv[1]).with_default_tag())
    print(*meaning.candidates)
except UsercontainerError:
    pass
"""


class Home:
    """A home directory with a registries.conf of its own, for both programs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        config = directory / ".config"
        self.conf = config / "containers" / "registries.conf"
        self.drop_ins = config / "containers" / "registries.conf.d"
        self.drop_ins.mkdir(parents=True)
        self.environment = {
            **os.environ,
            "HOME": str(directory),
            "XDG_CONFIG_HOME": str(config),
            "XDG_DATA_HOME": str(directory / "data"),
            "XDG_CACHE_HOME": str(directory / ".cache"),
        }

    def configure(self, text: str) -> None:
        self.conf.write_text(text)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=60, env=self.environment,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def ask_podman(self, name: str) -> list[str]:
        """Full names that Podman tries for ``name``, none if it refuses."""
        store = [f"--root={self.directory}/podman", f"--runroot={self.directory}/podman-run"]
        return TRIED.findall(self.run("podman", *store, "pull", "--retry=0", name).stderr)

    def ask_us(self, name: str) -> list[str]:
        """The same of ours, by its own code without a terminal."""
        result = self.run(sys.executable, "-c", _MEANING, name)
        assert (
            "Traceback" not in result.stderr
            or "UsercontainerError" in result.stderr
            or result.returncode == 1
        )
        assert result.returncode == 0, result.stderr
        return result.stdout.split()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


SEARCH = f'unqualified-search-registries = ["{NOBODY}", "127.0.0.1:2"]\n'
ALIASES = f'[aliases]\n"app" = "{NOBODY}/team/app"\n"gone" = ""\n"hub" = "docker.io/hub"\n'
DIGEST = f"sha256:{'a' * 64}"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (SEARCH + ALIASES, ["app", "app:1", f"app@{DIGEST}", "gone", "other", "team/other:2", f"{NOBODY}/x"]),
        (SEARCH + 'short-name-mode = "enforcing"\n' + ALIASES, ["app", "other"]),
        (SEARCH + 'short-name-mode = "disabled"\n', ["other"]),
        (f'unqualified-search-registries = ["{NOBODY}"]\nshort-name-mode = "enforcing"', ["other"]),
        ("", ["other"]),
        ("unqualified-search-registries = []", ["other"]),
    ],
)
def test_short_names_mean_what_podman_says(home: Home, text: str, names: list[str]) -> None:
    home.configure(text)
    for name in names:
        assert home.ask_us(name) == home.ask_podman(name), name


def test_drop_ins_and_recorded_aliases_count_as_for_podman(home: Home) -> None:
    home.configure(SEARCH + ALIASES)
    (home.drop_ins / "10.conf").write_text(f'[aliases]\n"app" = "{NOBODY}/ten"\n"b" = "{NOBODY}/ten"')
    (home.drop_ins / "20.conf").write_text(f'[aliases]\n"app" = "{NOBODY}/twenty"')
    (home.drop_ins / "30.conf.off").write_text("[broken")
    recorded = home.directory / ".cache" / "containers" / "short-name-aliases.conf"
    recorded.parent.mkdir(parents=True)
    for text in ("", f'[aliases]\n"b" = "{NOBODY}/recorded"'):
        recorded.write_text(text)
        for name in ("app", "b", "gone"):
            assert home.ask_us(name) == home.ask_podman(name), name
    assert home.ask_us("b") == [f"{NOBODY}/recorded:latest"]


def test_other_main_file_and_the_systems_drop_ins(home: Home) -> None:
    other = home.directory / "other.conf"
    other.write_text(SEARCH)
    home.configure("unqualified-search-registries = []")
    (home.drop_ins / "10.conf").write_text(f'[aliases]\n"app" = "{NOBODY}/ten"')
    home.environment["CONTAINERS_REGISTRIES_CONF"] = str(other)
    # The last is an alias that Fedora's and Debian's shortnames.conf have.
    for name in ("app", "other", "alpine"):
        assert home.ask_us(name) == home.ask_podman(name), name
    assert home.ask_us("app") == [f"{NOBODY}/ten:latest"]


@pytest.mark.parametrize(
    "text",
    [
        'short-name-mode = "lax"',
        'unqualified-search-registries = ["quay.io/team"]',
        '[[registry]]\nprefix = "x.io"',
        '[[registry]]\nlocation = "https://x.io"',
        '[[registry]]\nlocation = "x.io"\npull-from-mirror = "all"',
        '[[registry]]\nlocation = "x.io"\n[[registry.mirror]]\ninsecure = true',
        '[[registry]]\nlocation = "x.io"\n[[registry.mirror]]\nlocation = "y.io"\npull-from-mirror = "some"',
        '[aliases]\nx = "short"',
        '[aliases]\n"x:1" = "y.io/x"',
        "[[registry",
    ],
)
def test_both_refuse(home: Home, text: str) -> None:
    """What Podman cannot use is said here, too, and not guessed at."""
    home.configure(text)
    ours = home.run("usercontainer", "pull", "x")
    assert ours.returncode == 125
    assert str(home.conf) in ours.stderr
    assert home.run("podman", "pull", "x").returncode == 125


# Mirrors


@pytest.fixture
def pair(home: Home) -> Iterator[tuple[FakeRegistry, FakeRegistry]]:
    """A registry and its mirror, which have different images of one name."""
    with FakeRegistry() as own, FakeRegistry() as mirror:
        for registry, word in ((own, b"own"), (mirror, b"mirror")):
            registry.add_image("team/app", "latest", [build_tar(file("word", word))])
        home.configure(
            f'[[registry]]\nprefix = "example.test/apps"\nlocation = "{own.host}/team"\ninsecure = true\n'
            f'[[registry.mirror]]\nlocation = "{NOBODY}/x"\n'
            f'[[registry.mirror]]\nlocation = "{mirror.host}/team"\ninsecure = true\n'
        )
        yield own, mirror


def test_mirror_is_asked_and_the_name_stays(home: Home, pair: tuple[FakeRegistry, FakeRegistry]) -> None:
    own, mirror = pair
    result = home.run("usercontainer", "pull", "example.test/apps/app")
    assert result.returncode == 0, result.stderr
    assert f"The mirror {NOBODY}/x/app is passed over" in result.stderr
    assert own.seen == []
    assert any("/v2/team/app/blobs/" in path for path in mirror.paths())
    listed = home.run("usercontainer", "images", "--format", "{{.Repository}}:{{.Tag}}").stdout
    assert listed == "example.test/apps/app:latest\n"
    podman = [f"--root={home.directory}/podman", f"--runroot={home.directory}/podman-run"]
    by_podman = home.run("podman", *podman, "pull", "-q", "example.test/apps/app")
    assert by_podman.stdout.split() == result.stdout.split()


@pytest.mark.parametrize("how", ["no image", "wrong blob", "no blob", "denied", "nonsense"])
def test_mirror_that_fails_is_passed_over(
    home: Home, pair: tuple[FakeRegistry, FakeRegistry], how: str
) -> None:
    own, mirror = pair
    if how == "no image":
        mirror.manifests.clear()
    elif how == "wrong blob":
        mirror.blobs.update({digest: data[:-1] + b"?" for digest, data in mirror.blobs.items()})
    elif how == "no blob":
        mirror.blobs.clear()
    elif how == "denied":
        mirror.rules["/v2/team/app/manifests/latest"] = lambda handler: handler.answer(403)
    else:
        mirror.rules["/v2/team/app/manifests/latest"] = lambda handler: handler.answer(200, b"<html>")
    result = home.run("usercontainer", "pull", "example.test/apps/app")
    assert result.returncode == 0, result.stderr
    assert f"The mirror {mirror.host}/team/app is passed over" in result.stderr
    assert any("/v2/team/app/blobs/" in path for path in own.paths())


def test_credentials_of_the_command_line_are_not_for_mirrors(
    home: Home, pair: tuple[FakeRegistry, FakeRegistry]
) -> None:
    own, mirror = pair
    mirror.token = "secret"
    challenge = {"WWW-Authenticate": 'Basic realm="x"'}
    mirror.rules["/v2/team/app/manifests/latest"] = lambda handler: handler.answer(401, b"", challenge)
    result = home.run("usercontainer", "pull", "--creds", "user:password", "example.test/apps/app")
    assert result.returncode == 0, result.stderr
    assert not any("authorization" in headers for _, headers in (*mirror.seen, *own.seen))


# The question


def test_choice_at_the_terminal_is_kept(home: Home) -> None:
    with FakeRegistry() as registry:
        registry.add_image("app", "latest", [build_tar(file("word"))])
        home.configure(
            f'unqualified-search-registries = ["{NOBODY}", "{registry.host}"]\n'
            f'[[registry]]\nlocation = "{registry.host}"\ninsecure = true\n'
        )
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            ["usercontainer", "pull", "app"], stdin=theirs, stdout=theirs, stderr=theirs, env=home.environment
        )
        os.close(theirs)
        seen = bytearray()

        def has_asked() -> bool:
            seen.extend(os.read(ours, 4096))
            return b"Number (1-2): " in seen

        wait_until(has_asked, "the question")
        assert f"  2) {registry.host}/app:latest".encode() in seen
        os.write(ours, b"2\n")
        assert process.wait(timeout=60) == 0
        os.close(ours)
    recorded = home.directory / ".cache" / "containers" / "short-name-aliases.conf"
    assert recorded.read_text() == f'[aliases]\n  "app" = "{registry.host}/app"\n'
    # Podman goes by it.
    assert home.ask_podman("app") == home.ask_us("app") == [f"{registry.host}/app:latest"]


def test_wording_without_a_terminal(home: Home) -> None:
    home.configure(SEARCH + 'short-name-mode = "enforcing"')
    result = home.run("usercontainer", "pull", "other")
    assert result.returncode == 125
    assert "'other' can mean" in result.stderr
    assert "there is no terminal" in result.stderr
    assert run("usercontainer", "images", "other", check=False).returncode == 0
