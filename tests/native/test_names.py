"""Names as on Fedora: the same registries.conf means the same to us and to the real Podman; mirrors are asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.containers import Container, run
from tests.support.fakeregistry import FakeRegistry, build_tar, file
from tests.support.homes import Home
from tests.support.images import ImageMaker
from tests.support.realregistry import PASSWORD, USER, RealRegistry

NOBODY = "127.0.0.1:1"  # where nobody listens


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
        '[[registry]]\nlocation = "x.io"\n[[registry]]\nprefix = "y.io"\nlocation = "x.io"\nblocked = true',
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
    assert home.run_podman("pull", "x").returncode == 125


def test_drop_ins_that_cannot_be_read_are_not_passed_over(home: Home) -> None:
    """They may say what is blocked."""
    home.configure("")
    home.drop_ins.chmod(0)
    try:
        ours = home.run_ours("pull", "x")
        assert (ours.returncode, home.run_podman("pull", "x").returncode) == (125, 125)
        assert f"{home.drop_ins}: cannot be read: Permission denied" in ours.stderr
    finally:
        home.drop_ins.chmod(0o700)


# Places

PLACES = """
[[registry]]
prefix = "example.test/foo"
location = "127.0.0.1:1/bar"
[[registry.mirror]]
location = "127.0.0.1:2/mirror"
[[registry.mirror]]
location = "127.0.0.1:3/tags"
pull-from-mirror = "tag-only"
[[registry.mirror]]
location = "127.0.0.1:4/digests"
pull-from-mirror = "digest-only"

[[registry]]
prefix = "example.test/foo/deep"
location = "127.0.0.1:1/deep"
mirror-by-digest-only = true
[[registry.mirror]]
location = "127.0.0.1:5"

[[registry]]
prefix = "*.example.test"
location = "127.0.0.1:1/wild"
[[registry.mirror]]
location = "127.0.0.1:2/wild"

[[registry]]
prefix = "docker.io/library"
location = "127.0.0.1:1/hub"
[[registry]]
prefix = "blocked.test"
location = "127.0.0.1:1/blocked/deep"
[[registry]]
location = "127.0.0.1:1/blocked"
blocked = true
"""
PLACED = [
    "example.test/foo/app:1",
    "example.test/foo:1",
    f"example.test/foo/app@{DIGEST}",
    "example.test/foo/deep/app:1",
    f"example.test/foo/deep/app@{DIGEST}",
    "a.b.example.test/x:1",
    "docker.io/alpine:1",
]


def test_places_are_those_of_podman(home: Home) -> None:
    home.configure(PLACES)
    for name, ours in zip(PLACED, home.ask_our_places(*PLACED), strict=True):
        assert ours == home.ask_podman_places(name) != [], name


def test_what_is_blocked_is_blocked_for_podman(home: Home) -> None:
    home.configure(PLACES)
    for name in ("127.0.0.1:1/blocked/x", "blocked.test/x"):
        ours, podman = home.run_ours("pull", name), home.run_podman("pull", name)
        assert (ours.returncode, podman.returncode) == (125, 125)
        assert "is blocked" in ours.stderr
        assert "is blocked" in podman.stderr


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
    by_podman = home.run_podman("pull", "-q", "example.test/apps/app")
    assert by_podman.stdout.split() == result.stdout.split()


@pytest.mark.parametrize("how", ["no image", "wrong blob", "no blob", "denied", "nonsense", "busy"])
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
    elif how == "nonsense":
        mirror.rules["/v2/team/app/manifests/latest"] = lambda handler: handler.answer(200, b"<html>")
    else:
        mirror.rules["/v2/team/app/manifests/latest"] = lambda handler: handler.answer(503)
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
        with home.type_at("usercontainer", "pull", "app") as (process, keyboard):
            seen = keyboard.answer("Number (1-2): ", "2")
            assert f"  2) {registry.host}/app:latest" in seen
            assert process.wait(timeout=60) == 0
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


def test_mirror_has_a_login_and_certificates_of_its_own(home: Home, secure_registry: RealRegistry) -> None:
    mirror = secure_registry.host
    run(
        "skopeo", "copy", "-q", "--src-tls-verify=false", "--dest-creds", f"{USER}:{PASSWORD}",
        "--dest-cert-dir", str(secure_registry.certificates),
        "docker://localhost:5000/busybox", f"docker://{mirror}/copies/busybox",
    )  # fmt: skip
    home.configure(
        f'[[registry]]\nlocation = "{NOBODY}"\n[[registry.mirror]]\nlocation = "{mirror}/copies"\n'
    )
    certs_d = home.config / "containers" / "certs.d"
    certs_d.mkdir()
    (certs_d / mirror).symlink_to(secure_registry.certificates)
    name = f"{NOBODY}/busybox"
    assert "is passed over" in home.run_ours("pull", name).stderr
    logged_in = home.run_ours("login", "-u", USER, "--password-stdin", f"{mirror}/copies", text=PASSWORD)
    assert logged_in.returncode == 0, logged_in.stderr
    ours, podman = home.run_ours("pull", "-q", name), home.run_podman("pull", "-q", name)
    assert ours.stdout == podman.stdout != ""
    listed = home.run_ours("images", "--format", "{{.Repository}}").stdout
    assert listed == f"{name}\n"


def test_mirror_that_fails_while_a_unit_starts_is_in_its_journal(
    container: Callable[..., Container], images: ImageMaker
) -> None:
    image = images.add("mirrored")
    drop_in = Path.home() / ".config/containers/registries.conf.d" / "mirrored.conf"
    drop_in.write_text(
        f'[[registry]]\nprefix = "mirrored.test"\nlocation = "{images.host}"\ninsecure = true\n'
        f'[[registry.mirror]]\nlocation = "{NOBODY}"\n'
    )
    try:
        name = image.replace(images.host, "mirrored.test")
        one = container(f'image = "{name}"\ncommand = ["echo", "it runs"]\nnetwork = "none"\n')
        one.start()
        text = one.finish()
    finally:
        drop_in.unlink()
    assert f"The mirror {NOBODY}/mirrored is passed over" in text
    assert "it runs" in text
