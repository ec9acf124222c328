"""registries.conf: what a name means, where it leads, and what is refused."""

import tomllib
from pathlib import Path

import pytest

from usercontainerd.base.errors import InvalidFormat, PullDenied
from usercontainerd.oci.reference import parse_reference
from usercontainerd.registry import configuration_files
from usercontainerd.registry.configuration import RegistriesConfiguration, ShortNameMode
from usercontainerd.registry.configuration_files import (
    find_configuration_files,
    merge_configurations,
    read_registries_configuration,
)
from usercontainerd.registry.recorded_aliases import find_recorded_aliases, record_alias

DIGEST = f"sha256:{'a' * 64}"


def merge(*texts: str) -> RegistriesConfiguration:
    return merge_configurations((f"file{n}", tomllib.loads(text)) for n, text in enumerate(texts))


def candidates(configuration: RegistriesConfiguration, text: str) -> list[str]:
    return [str(candidate) for candidate in configuration.candidates(parse_reference(text))]


def locate_all(configuration: RegistriesConfiguration, text: str) -> list[str]:
    """All endpoints of a pull, ``!`` for one without TLS."""
    endpoints = configuration.locate_all(parse_reference(text))
    assert [endpoint.is_mirror for endpoint in endpoints] == [True] * (len(endpoints) - 1) + [False]
    return [f"{endpoint.reference}{'!' if endpoint.insecure else ''}" for endpoint in endpoints]


# Short names


def test_without_configuration_short_names_mean_docker_hub() -> None:
    for configuration in (RegistriesConfiguration(), merge()):
        assert candidates(configuration, "busybox:1") == ["docker.io/library/busybox:1"]
        assert candidates(configuration, "quay.io/x") == ["quay.io/x"]
    (endpoint,) = RegistriesConfiguration().locate_all(parse_reference("docker.io/x"))
    assert endpoint.host == "registry-1.docker.io"


SHORT_NAMES = """
unqualified-search-registries = ["a.io:5000", "docker.io"]
[aliases]
fedora = "registry.fedoraproject.org/fedora"
team/tool = "quay.io/other/tool"
hub = "docker.io/hub"
"""


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("busybox", ["a.io:5000/busybox", "docker.io/library/busybox"]),
        ("team/busybox:2", ["a.io:5000/team/busybox:2", "docker.io/team/busybox:2"]),
        (f"busybox@{DIGEST}", [f"a.io:5000/busybox@{DIGEST}", f"docker.io/library/busybox@{DIGEST}"]),
        ("fedora:41", ["registry.fedoraproject.org/fedora:41"]),
        (f"fedora@{DIGEST}", [f"registry.fedoraproject.org/fedora@{DIGEST}"]),
        ("team/tool", ["quay.io/other/tool"]),
        ("tool", ["a.io:5000/tool", "docker.io/library/tool"]),
        ("hub", ["docker.io/library/hub"]),
        ("localhost/fedora", ["localhost/fedora"]),
    ],
)
def test_short_names(text: str, meant: list[str]) -> None:
    assert candidates(merge(SHORT_NAMES.replace("team/tool =", '"team/tool" =')), text) == meant


def test_local_candidates() -> None:
    configuration = merge(SHORT_NAMES.replace("team/tool =", '"team/tool" ='))

    def local(text: str) -> list[str]:
        return [str(each) for each in configuration.local_candidates(parse_reference(text))]

    assert local("busybox") == ["localhost/busybox", "a.io:5000/busybox", "docker.io/library/busybox"]
    # Podman's order: an alias comes before localhost.
    assert local("fedora:1")[:2] == ["registry.fedoraproject.org/fedora:1", "localhost/fedora:1"]
    assert local("quay.io/x") == ["quay.io/x"]


def test_resolution_says_whose_word_it_is() -> None:
    merged = merge('unqualified-search-registries = ["a.io"]\n[aliases]\nx = "y.io/x"', "")
    by_alias, by_search = (merged.resolve(parse_reference(text)) for text in ("x:1", "z"))
    assert (by_alias.short, by_alias.origin, by_alias.by_alias) == ("x", "file0", True)
    assert (by_search.short, by_search.origin, by_search.by_alias) == ("z", "file0", False)
    full = merged.resolve(parse_reference("a.io/z"))
    assert (full.short, full.origin) == ("", "")


def test_later_files_win() -> None:
    merged = merge(
        'unqualified-search-registries = ["a.io"]\nshort-name-mode = "enforcing"\ncredential-helpers = ["pass"]\n'
        '[[registry]]\nlocation = "r.io"\ninsecure = true\n[[registry]]\nlocation = "s.io"\n'
        '[aliases]\nx = "y.io/x"\nz = "y.io/z"',
        'unqualified-search-registries = ["b.io"]\n[[registry]]\nlocation = "r.io"\n[aliases]\nx = ""\nz = "w.io/z"',
    )
    assert merged.search == ("b.io",)
    assert merged.search_origin == "file1"
    assert merged.mode is ShortNameMode.ENFORCING
    assert merged.credential_helpers == ("pass",)
    assert locate_all(merged, "r.io/x") == ["r.io/x"]
    assert [entry.prefix for entry in merged.registries] == ["r.io", "s.io"]
    assert candidates(merged, "x") == ["b.io/x"]
    assert candidates(merged, "z") == ["w.io/z"]
    assert merge("[aliases]").credential_helpers == ("containers-auth.json",)
    assert merge("[aliases]").mode is ShortNameMode.PERMISSIVE


def test_files_without_a_search_list_mean_that() -> None:
    assert candidates(merge("unqualified-search-registries = []"), "busybox") == []
    assert candidates(merge('[[registry]]\nlocation = "r.io"'), "busybox") == []


# Places

# The man page's own example, and one of each other kind.
PLACES = """
[[registry]]
prefix = "example.com/foo"
location = "internal.example/bar"
[[registry.mirror]]
location = "mirror-0.local/mirror-for-foo"
[[registry.mirror]]
location = "mirror-1.local:5000/mirrors/foo"
insecure = true

[[registry]]
location = "registry.com"
[[registry.mirror]]
location = "mirror.registry.com"
pull-from-mirror = "digest-only"
[[registry.mirror]]
location = "tags.registry.com"
pull-from-mirror = "tag-only"
[[registry.mirror]]
location = "all.registry.com"
pull-from-mirror = "all"

[[registry]]
location = "strict.io"
mirror-by-digest-only = true
[[registry.mirror]]
location = "mirror.strict.io"

[[registry]]
location = "localhost:5000"
insecure = true
[[registry]]
prefix = "*.example.net"
insecure = true
[[registry.mirror]]
location = "cache.local"
[[registry]]
prefix = "*.deep.example.net"
location = "moved.io"
[[registry]]
prefix = "docker.io/library"
location = "quay.io/hub"
[[registry]]
prefix = "one.io/app:1"
location = "other.io/app:2"
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "example.com/foo/image:latest",
            [
                "mirror-0.local/mirror-for-foo/image:latest",
                "mirror-1.local:5000/mirrors/foo/image:latest!",
                "internal.example/bar/image:latest",
            ],
        ),
        ("example.com/foo:1", ["mirror-0.local/mirror-for-foo:1", "mirror-1.local:5000/mirrors/foo:1!",
                               "internal.example/bar:1"]),
        ("example.com/foobar:1", ["example.com/foobar:1"]),
        ("registry.com/i:1", ["tags.registry.com/i:1", "all.registry.com/i:1", "registry.com/i:1"]),
        (f"registry.com/i@{DIGEST}", [f"mirror.registry.com/i@{DIGEST}", f"all.registry.com/i@{DIGEST}",
                                      f"registry.com/i@{DIGEST}"]),
        ("strict.io/i:1", ["strict.io/i:1"]),
        (f"strict.io/i@{DIGEST}", [f"mirror.strict.io/i@{DIGEST}", f"strict.io/i@{DIGEST}"]),
        ("localhost:5000/a:1", ["localhost:5000/a:1!"]),
        ("localhost:50001/a", ["localhost:50001/a"]),
        ("blah.example.net/x:1", ["cache.local/x:1", "blah.example.net/x:1!"]),
        ("a.b.example.net:5000/x", ["cache.local:5000/x", "a.b.example.net:5000/x!"]),
        ("a.deep.example.net/x", ["moved.io/x"]),
        ("example.net/x", ["example.net/x"]),
        ("evilexample.net/x", ["evilexample.net/x"]),
        ("example.net.evil.io/x", ["example.net.evil.io/x"]),
        ("docker.io/alpine:3", ["quay.io/hub/alpine:3"]),
        ("docker.io/team/alpine", ["docker.io/team/alpine"]),
        ("one.io/app:1", ["other.io/app:2"]),
        ("one.io/app:11", ["one.io/app:11"]),
    ],
)  # fmt: skip
def test_places(text: str, expected: list[str]) -> None:
    assert locate_all(merge(PLACES), text) == expected


def test_a_push_goes_where_the_name_says() -> None:
    configuration = merge(PLACES)
    for text, insecure in (("example.com/foo/image:1", False), ("x.example.net/a:1", True)):
        endpoint = configuration.locate(parse_reference(text))
        assert (str(endpoint.reference), endpoint.insecure, endpoint.is_mirror) == (text, insecure, False)


BLOCKED = """
[[registry]]
location = "bad.io"
blocked = true
[[registry]]
location = "bad.io/good"
[[registry]]
prefix = "moved.io"
location = "bad.io/moved"
[[registry]]
location = "mirrored.io"
[[registry.mirror]]
location = "bad.io/mirror"
"""


@pytest.mark.parametrize("text", ["bad.io/x", "bad.io/goods", "moved.io/x"])
def test_blocked(text: str) -> None:
    with pytest.raises(PullDenied, match=rf"{text}.*: bad\.io is blocked by registries\.conf \(file0\)"):
        merge(BLOCKED).locate_all(parse_reference(text))


def test_blocks_end_where_something_longer_matches() -> None:
    assert locate_all(merge(BLOCKED), "bad.io/good/x") == ["bad.io/good/x"]
    assert locate_all(merge(BLOCKED), "mirrored.io/x") == ["mirrored.io/x"]
    with pytest.raises(PullDenied):
        merge(BLOCKED).locate(parse_reference("bad.io/x"))


def test_location_that_makes_no_name() -> None:
    for location in ("host.io/UPPER", "nodots"):
        with pytest.raises(InvalidFormat, match=rf"file0: location '{location}'"):
            merge(f'[[registry]]\nprefix = "a.io"\nlocation = "{location}"').locate_all(
                parse_reference("a.io/x")
            )


# What is refused, and what is not


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[registries.search]\nregistries = []", "old format"),
        ("registries = 5", "old format"),
        ('unqualified-search-registries = "x"', "unqualified-search-registries must be an array of strings"),
        ('unqualified-search-registries = ["quay.io/team"]', "'quay.io/team' is not a registry"),
        # To Podman, this is a namespace of Docker Hub's.
        ('unqualified-search-registries = ["nodots"]', "'nodots' is not a registry .*with a dot"),
        ('unqualified-search-registries = ["https://quay.io"]', "must not name a scheme"),
        ('short-name-mode = "lax"', "short-name-mode: 'lax' is not a mode"),
        ("short-name-mode = 5", "short-name-mode: 5 is not a mode"),
        ("credential-helpers = [5]", "credential-helpers must be an array"),
        ('[registry]\nlocation = "x"', "array of tables"),
        ('[[registry]]\nlocation = "https://x"', r"registry\[0\]\.location 'https://x' must not name a scheme"),
        ("[[registry]]\ninsecure = true", r"registry\[0\] has neither prefix nor location"),
        ('[[registry]]\nprefix = "x.io"', r'registry\[0\] has no location \(location = "x\.io"\)'),
        ('[[registry]]\nprefix = "*.x.io/foo"\nlocation = "y.io"', "may have the form"),
        ('[[registry]]\nlocation = "x"\ninsecure = "yes"', r"registry\[0\]\.insecure must be true or false"),
        ("[[registry]]\nlocation = 5", r"registry\[0\]\.location must be a string"),
        ('[[registry]]\nlocation = "x"\npull-from-mirror = "all"', "is for mirrors only"),
        ('[[registry]]\nlocation = "x"\n[registry.mirror]\nlocation = "y"', r"registry\.mirror must be an array"),
        ('[[registry]]\nlocation = "x"\n[[registry.mirror]]', r"registry\[0\]\.mirror\[0\] has no location"),
        ('[[registry]]\nlocation = "x"\n[[registry.mirror]]\nlocation = "y"\npull-from-mirror = "some"',
         r"mirror\[0\]\.pull-from-mirror: 'some' is not possible \(all, digest-only or tag-only\)"),
        ('[[registry]]\nlocation = "x"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = "y"\n'
         'pull-from-mirror = "all"', "says mirror-by-digest-only"),
        ('[[registry]]\nlocation = "x"\n[[registry]]\nprefix = "y"\nlocation = "x"\nblocked = true',
         r"registry\[1\]\.blocked: other tables say otherwise of 'x'"),
        ("aliases = 5", "aliases must be a table"),
        ("[aliases]\nx = 5", r"aliases\.x must be a string"),
        ('[aliases]\nx = "short"', r"aliases\.x: 'short' must have a registry"),
        ('[aliases]\nx = "a.io/x:1"', "neither tag nor digest"),
        ('[aliases]\n"x:1" = "a.io/x"', "without registry, tag and digest"),
        ('[aliases]\n"a.io/x" = "a.io/x"', "without registry, tag and digest"),
        ('[aliases]\nx = "a.io/UPPER"', r"aliases\.x: .*lower case"),
    ],
)  # fmt: skip
def test_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidFormat, match=message) as caught:
        merge(text)
    assert caught.value.where == "file0"


@pytest.mark.parametrize(
    "text",
    [
        "unknown = 5",
        'additional-layer-store-auth-helper = "x"',
        "[registries]",
        '[[registry]]\nlocation = "x.io"\nunknown = true',
        'short-name-mode = ""',
        # Of two tables for one prefix, the first counts.
        '[[registry]]\nlocation = "r.io"\n[[registry]]\nprefix = "r.io"\nlocation = "s.io"',
    ],
)
def test_not_refused(text: str) -> None:
    assert locate_all(merge(text), "r.io/x") == ["r.io/x"]


# Files


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The administrator's directory; the user's ``~/.config`` is ``tmp_path / "user"``."""
    monkeypatch.setattr(configuration_files, "SYSTEM", str(tmp_path / "etc" / "registries.conf"))
    monkeypatch.setattr(configuration_files, "VENDOR", str(tmp_path / "usr" / "registries.conf"))
    for directory in ("etc", "usr", "user/containers"):
        (tmp_path / directory / "registries.conf.d").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("there", "environment", "read"),
    [
        ([], {}, []),
        (["usr"], {}, ["usr/registries.conf", "etc/.d", "user/containers/.d"]),
        (["usr", "etc"], {}, ["etc/registries.conf", "etc/.d", "user/containers/.d"]),
        (["etc", "user/containers"], {}, ["user/containers/registries.conf", "user/containers/.d"]),
        (["etc", "user/containers"], {"CONTAINERS_REGISTRIES_CONF": "other"},
         ["other", "etc/.d", "user/containers/.d"]),
        (["etc"], {"CONTAINERS_REGISTRIES_CONF_DIR": "usr/registries.conf.d"}, ["etc/registries.conf", "usr/.d"]),
        (["user/containers"], {"CONTAINERS_REGISTRIES_CONF_DIR": "usr/registries.conf.d"},
         ["user/containers/registries.conf", "usr/.d"]),
    ],
)  # fmt: skip
def test_which_files_are_read(
    system: Path, there: list[str], environment: dict[str, str], read: list[str]
) -> None:
    for directory in there:
        (system / directory / "registries.conf").touch()
        for each in ("etc", "usr", "user/containers"):
            (system / each / "registries.conf.d" / "50.conf").touch()
    absolute = {key: f"{system}/{value}" for key, value in environment.items()}
    expected = [f"{system}/{path.replace('/.d', '/registries.conf.d/50.conf')}" for path in read]
    assert find_configuration_files(f"{system}/user", absolute) == expected


def test_drop_ins_in_their_order(system: Path) -> None:
    directory = system / "user/containers/registries.conf.d"
    for name, registry in (("20.conf", "b.io"), ("10.conf", "a.io"), ("30.txt", "c.io")):
        (directory / name).write_text(f'unqualified-search-registries = ["{registry}"]')
    (directory / "40.conf").mkdir()
    (directory / "50.conf").symlink_to("nowhere")
    assert read_registries_configuration(f"{system}/user", {}).search == ("b.io",)


def test_files_that_cannot_be_used(system: Path) -> None:
    other = system / "other.conf"
    environment = {"CONTAINERS_REGISTRIES_CONF": str(other)}
    with pytest.raises(InvalidFormat, match=r"other\.conf: there is no such file"):
        read_registries_configuration(f"{system}/user", environment)
    other.write_text("x = 1\nbroken = = 2")
    with pytest.raises(InvalidFormat, match=r"other\.conf: not valid TOML: .*line 2"):
        read_registries_configuration(f"{system}/user", environment)
    other.write_bytes(b"x = '\xff'")
    with pytest.raises(InvalidFormat, match=r"other\.conf: not valid TOML"):
        read_registries_configuration(f"{system}/user", environment)
    other.write_text("#" * (1 << 20) + "\n")
    with pytest.raises(InvalidFormat, match="longer than"):
        read_registries_configuration(f"{system}/user", environment)


# Aliases that were chosen


def test_recorded_aliases(system: Path) -> None:
    path = find_recorded_aliases(f"{system}/cache")
    (system / "etc/registries.conf").write_text('[aliases]\nx = "admin.io/x"\ny = "admin.io/y"')

    def read(text: str) -> list[str]:
        return candidates(read_registries_configuration(f"{system}/user", {}, recorded=path), text)

    assert read("x") == ["admin.io/x"]
    record_alias(path, "x", "chosen.io/x")
    record_alias(path, "team/z", "chosen.io/z")
    record_alias(path, "x", "again.io/x")
    assert read("x:2") == ["again.io/x:2"]
    assert read("team/z") == ["chosen.io/z"]
    assert read("y") == ["admin.io/y"]
    assert Path(path).read_text() == '[aliases]\n  "team/z" = "chosen.io/z"\n  "x" = "again.io/x"\n'
    assert Path(path).stat().st_mode & 0o777 == 0o600


def test_damaged_recorded_aliases_stay(system: Path) -> None:
    path = Path(find_recorded_aliases(f"{system}/cache"))
    path.parent.mkdir(parents=True)
    path.write_text("[aliases")
    with pytest.raises(InvalidFormat, match=r"short-name-aliases\.conf: not valid TOML"):
        record_alias(str(path), "x", "y.io/x")
    assert path.read_text() == "[aliases"
