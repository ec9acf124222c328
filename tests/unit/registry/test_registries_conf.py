"""registries.conf: what a name means, and what is blocked or insecure."""

import tomllib
from pathlib import Path

import pytest

from usercontainerd.base.errors import InvalidFormat, PullDenied
from usercontainerd.oci.reference import parse_reference
from usercontainerd.registry.configuration import (
    RegistriesConfiguration,
    merge_configurations,
    read_registries_configuration,
)


def merge(*texts: str) -> RegistriesConfiguration:
    return merge_configurations((f"file{n}", tomllib.loads(text)) for n, text in enumerate(texts))


def candidates(configuration: RegistriesConfiguration, text: str) -> list[str]:
    return [str(candidate) for candidate in configuration.candidates(parse_reference(text))]


def locate(configuration: RegistriesConfiguration, text: str) -> str:
    endpoint = configuration.locate(parse_reference(text))
    return f"{endpoint.reference}{' insecure' if endpoint.insecure else ''}"


def test_without_configuration_short_names_mean_docker_hub() -> None:
    assert candidates(RegistriesConfiguration(), "busybox:1") == ["docker.io/library/busybox:1"]
    assert candidates(RegistriesConfiguration(), "quay.io/x") == ["quay.io/x"]
    assert RegistriesConfiguration().locate(parse_reference("docker.io/x")).host == "registry-1.docker.io"


def test_search_list_and_aliases() -> None:
    merged = merge(
        'unqualified-search-registries = ["a.io", "docker.io"]\n'
        '[aliases]\nfedora = "registry.fedoraproject.org/fedora"\nx = "y.io/x"',
        '[aliases]\nx = ""',
    )
    assert candidates(merged, "busybox") == ["a.io/busybox", "docker.io/library/busybox"]
    assert candidates(merged, "fedora:41") == ["registry.fedoraproject.org/fedora:41"]
    assert candidates(merged, "x") == ["a.io/x", "docker.io/library/x"]
    assert candidates(merge("unqualified-search-registries = []"), "busybox") == []


def test_later_files_win() -> None:
    merged = merge(
        'unqualified-search-registries = ["a.io"]\n[[registry]]\nlocation = "r.io"\ninsecure = true',
        'unqualified-search-registries = ["b.io"]\n[[registry]]\nlocation = "r.io"',
    )
    assert merged.search == ("b.io",)
    assert locate(merged, "r.io/x") == "r.io/x"


CONFIGURATION = """
[[registry]]
location = "localhost:5000"
insecure = true
[[registry]]
prefix = "old.io/team"
location = "new.io:8443/other/team"
[[registry]]
prefix = "bad.io"
blocked = true
[[registry]]
prefix = "bad.io/good"
[[registry]]
prefix = "*.example.com"
location = "mirror.io"
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("localhost:5000/a:1", "localhost:5000/a:1 insecure"),
        ("localhost:50001/a", "localhost:50001/a"),
        ("old.io/team/app:2", "new.io:8443/other/team/app:2"),
        ("old.io/teams/app", "old.io/teams/app"),
        ("bad.io/good/x", "bad.io/good/x"),
        ("r.example.com/x", "mirror.io/x"),
        ("example.com/x", "example.com/x"),
        ("evilexample.com/x", "evilexample.com/x"),
    ],
)
def test_locations(text: str, expected: str) -> None:
    assert locate(merge(CONFIGURATION), text) == expected


def test_blocked() -> None:
    with pytest.raises(PullDenied, match=r"bad\.io is blocked"):
        merge(CONFIGURATION).locate(parse_reference("bad.io/x"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[registries.search]\nregistries = []", "old format"),
        ('unqualified-search-registries = "x"', "must be an array of strings"),
        ('[registry]\nlocation = "x"', "array of tables"),
        ('[[registry]]\nlocation = "https://x"', "must not name a scheme"),
        ("[[registry]]\ninsecure = true", "neither prefix nor location"),
        ('[[registry]]\nlocation = "x"\ninsecure = "yes"', "must be true or false"),
        ("[[registry]]\nlocation = 5", "must be a string"),
        ("aliases = 5", "must be a table"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidFormat, match=message) as caught:
        merge(text)
    assert caught.value.where == "file0"


def test_files(tmp_path: Path) -> None:
    containers = tmp_path / "containers"
    (containers / "registries.conf.d").mkdir(parents=True)
    main = containers / "registries.conf"
    main.write_text('unqualified-search-registries = ["a.io"]')
    (containers / "registries.conf.d" / "10.conf").write_text('unqualified-search-registries = ["b.io"]')
    (containers / "registries.conf.d" / "ignored.txt").write_text("= nonsense")
    assert read_registries_configuration(str(tmp_path), {}).search == ("b.io",)
    other = tmp_path / "other.conf"
    other.write_text("broken = [")
    with pytest.raises(InvalidFormat, match=r"other\.conf: not valid TOML"):
        read_registries_configuration(str(tmp_path), {"CONTAINERS_REGISTRIES_CONF": str(other)})
