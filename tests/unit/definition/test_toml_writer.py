"""Rendering any valid definition and parsing the text gives the same definition."""

from __future__ import annotations

import tomllib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.definition.owner import DIRECTORY, OWNER
from usercontainerd.definition.directive_names import SECTIONS
from usercontainerd.definition.directives import REFUSED
from usercontainerd.definition.model import (
    Definition,
    Mount,
    MountType,
    Network,
    Notify,
    Output,
    Port,
    Resources,
    Restart,
    Security,
    UserNamespace,
    WritableLayer,
)
from usercontainerd.definition.ports import find_family
from usercontainerd.definition.pull_policy import PullPolicy
from usercontainerd.definition.toml_reader import SourceText, parse_definition
from usercontainerd.definition.toml_writer import quote, render_definition
from usercontainerd.definition.values import has_control_characters
from usercontainerd.definition.vocabulary import CAPABILITIES, SIGNALS

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
lines = texts.filter(lambda t: t.strip() != "" and not has_control_characters(t))
names = lines.filter(lambda t: "=" not in t and t == t.strip())
words = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,10}", fullmatch=True)
parts = lines.map(lambda t: t.replace("/", "")).filter(lambda t: t not in ("", ".", "..") and t.strip() != "")
paths = st.lists(parts, min_size=1, max_size=3).map(lambda p: "/" + "/".join(p))
pairs = st.dictionaries(names, texts, max_size=3).map(lambda d: tuple(d.items()))


@st.composite
def ports(draw: st.DrawFn) -> tuple[Port, ...]:
    """Ports of the host grow, so that none is published twice."""
    found = []
    host = 1
    for _ in range(draw(st.integers(0, 3))):
        length = draw(st.sampled_from((1, 1, 5)))
        address = draw(st.sampled_from(("", "127.0.0.1", "::1", "0.0.0.0", "2001:db8::1")))
        container = draw(st.integers(1, 65535 - length))
        found.append(Port(host, container, length, address, draw(st.sampled_from(("tcp", "udp")))))
        host += length + draw(st.integers(0, 10000))
    return tuple(found)


@st.composite
def mounts(draw: st.DrawFn) -> tuple[Mount, ...]:
    found = []
    options = st.lists(st.sampled_from(("nosuid", "noexec", "rshared")), unique=True, max_size=2).map(tuple)
    for target in draw(st.lists(paths, unique=True, max_size=3)):
        kind = draw(st.sampled_from(MountType))
        source = draw({"bind": paths, "volume": st.just("") | words, "tmpfs": st.just("")}[kind])
        mount = Mount(kind, target, source, read_only=draw(st.booleans()), options=draw(options))
        if kind is MountType.TMPFS:
            size = draw(st.none() | st.integers(4096, 2**63 - 1))
            mount = replace(mount, size=size, mode=draw(st.none() | st.integers(0, 0o7777)))
        elif kind is MountType.BIND:
            mount = replace(mount, create=draw(st.booleans()))
        found.append(mount)
    return tuple(found)


def directives(section: str) -> st.SearchStrategy[tuple[tuple[str, tuple[str, ...]], ...]]:
    allowed = sorted(SECTIONS[section] - set(REFUSED) - {"ExecStopPost"})
    values = texts.map(str.strip).filter(lambda t: not (set(t) & set("\n\r\0")) and not t.endswith("\\"))
    values = values.filter(
        lambda t: all((ord(c) & 0xFFFE) != 0xFFFE and not 0xFDD0 <= ord(c) <= 0xFDEF for c in t)
    )
    entries = st.dictionaries(
        st.sampled_from([*allowed, "X-Mine"]), st.lists(values, min_size=1, max_size=3).map(tuple), max_size=3
    )
    return entries.map(lambda d: tuple(d.items()))


@st.composite
def securities(draw: st.DrawFn) -> Security:
    capabilities = draw(st.lists(st.sampled_from(sorted(CAPABILITIES | {"ALL"})), unique=True, max_size=5))
    middle = draw(st.integers(0, len(capabilities)))
    return Security(
        tuple(capabilities[:middle]),
        tuple(capabilities[middle:]),
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.sampled_from(("default", "unconfined")) | paths),
        draw(st.sampled_from(UserNamespace)),
    )


sizes = st.none() | st.integers(2**20, 2**63 - 1)
weights = st.none() | st.integers(1, 10000)
resources = st.builds(
    Resources,
    sizes,
    sizes,
    sizes | st.sampled_from((0, -1)),
    st.none() | st.floats(0.01, 8192),
    weights,
    st.none() | st.sampled_from((1, 20, -1)),
    weights,
)
units = st.lists(st.sampled_from(("default.target", "a@b.service", "x\\x2dy.socket")), min_size=1, max_size=3)
accounts = st.none() | st.sampled_from(("root", "1000", "www-data", "a_b.c"))


@st.composite
def definitions(draw: st.DrawFn) -> Definition:
    published = draw(ports())
    return Definition(
        name="web",
        image=draw(
            st.sampled_from(("busybox", "localhost:5000/a/b:c", "docker.io/library/x@sha256:" + "0a" * 32))
        ),
        description=draw(st.none() | lines),
        pull=draw(st.sampled_from(PullPolicy)),
        command=draw(st.none() | st.lists(texts, max_size=3).map(tuple)),
        entrypoint=draw(st.none() | st.lists(texts, max_size=3).map(tuple)),
        environment=draw(pairs),
        environment_files=draw(
            st.lists(paths | paths.map(lambda p: f"-{p}"), unique=True, max_size=2).map(tuple)
        ),
        user=draw(accounts),
        group=draw(accounts),
        working_directory=draw(st.none() | paths),
        hostname=draw(st.none() | st.sampled_from(("a", "a-b.example"))),
        ports=published,
        mounts=draw(mounts()),
        network=Network.PASTA if published else draw(st.sampled_from(Network)),
        resources=draw(resources),
        security=draw(securities()),
        labels=draw(pairs),
        annotations=draw(pairs),
        init=draw(st.booleans()),
        terminal=draw(st.booleans()),
        stop_signal=draw(st.none() | st.sampled_from((*SIGNALS, "SIGRTMIN+3"))),
        stop_timeout=draw(st.sampled_from((0.0, 10.0, 0.25, 1e-7, 1e12, float("inf"))) | st.floats(0, 1e12)),
        restart=draw(st.sampled_from(Restart)),
        notify=draw(st.sampled_from(Notify)),
        output=draw(st.sampled_from(Output)),
        writable_layer=draw(st.sampled_from(WritableLayer)),
        unit=draw(directives("unit")),
        service=draw(directives("service")),
        install=draw(st.just(()) | units.map(lambda u: (("WantedBy", tuple(u)),))),
    )


@given(definitions())
def test_what_was_written_is_read_back(definition: Definition) -> None:
    text = render_definition(definition)
    parsed, diagnostics = parse_definition("web", [SourceText(f"{DIRECTORY}/web.toml", text)], OWNER)
    assert [d for d in diagnostics if d.is_error] == []
    assert parsed == replace(definition, sources=(f"{DIRECTORY}/web.toml",))


@given(texts)
def test_quoting_is_toml(text: str) -> None:
    assert tomllib.loads(f"{quote(text)} = {quote(text)}") == {text: text}


def test_the_text_reads_as_if_written_by_hand() -> None:
    definition = Definition(
        "web",
        "docker.io/library/nginx:1.27",
        command=("nginx", "-g", "daemon off;"),
        environment=(("RATE", "100%"), ("odd name", 'a "b"\n')),
        ports=(Port(8080, 80), Port(53, 53, address="::1", protocol="udp"), Port(9000, 9000, 10)),
        mounts=(
            Mount(MountType.BIND, "/data", "/srv/data", read_only=True),
            Mount(MountType.TMPFS, "/tmp", size=2**26, mode=0o1777),
        ),
        stop_timeout=90.0,
        restart=Restart.ON_FAILURE,
        resources=Resources(memory=2**25, cpus=0.5),
        unit=(("After", ("a.service", "b.service")),),
        install=(("WantedBy", ("default.target",)),),
    )
    assert (
        render_definition(definition)
        == r"""image = "docker.io/library/nginx:1.27"
command = ["nginx", "-g", "daemon off;"]
stop_timeout = 90
restart = "on-failure"
ports = ["8080:80", "[::1]:53:53/udp", "9000-9009:9000-9009"]
mounts = [
    { type = "bind", source = "/srv/data", target = "/data", read_only = true },
    { type = "tmpfs", target = "/tmp", size = "64M", mode = "1777" },
]

[environment]
RATE = "100%%"
"odd name" = "a \"b\"\n"

[resources]
memory = "32M"
cpus = 0.5

[unit]
After = ["a.service", "b.service"]

[install]
WantedBy = "default.target"
"""
    )


@pytest.mark.parametrize(
    ("address", "family"), [("127.0.0.1", 4), ("::1", 6), ("x", 0), ("1.2.3", 0), ("\0", 0), ("é", 0)]
)
def test_families_of_addresses(address: str, family: int) -> None:
    assert find_family(address) == family
