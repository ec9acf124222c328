"""docker's options for a new container: what definition they make."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.base.programs import Programs
from usercontainerd.cli.call import Call
from usercontainerd.cli.container_table import (
    build_table,
    complete_port,
    convert_shares,
    explain_diagnostics,
    parse_entrypoint,
    parse_mount,
    parse_tmpfs,
)
from usercontainerd.cli.create import CREATE
from usercontainerd.cli.options import parse_options
from usercontainerd.definition.model import (
    Definition,
    Mount,
    MountType,
    Network,
    Port,
    Resources,
    Restart,
    Security,
    WritableLayer,
)
from usercontainerd.engine.containers.creation import plan_container
from usercontainerd.engine.context import build_context

ENVIRONMENT = {"HOME": "/home/alice", "XDG_RUNTIME_DIR": "/run/user/1000", "COLOUR": "red"}


def plan(line: str, directory: str = "/") -> Definition:
    call = Call("create", parse_options(CREATE, shlex.split(line)), ENVIRONMENT)
    context = build_context(ENVIRONMENT, Programs("/usr/libexec/usercontainerd"), 1000, 1000)
    definition, problems = plan_container(context, "web", build_table(call), directory)
    if definition is None:
        raise explain_diagnostics(problems)
    return definition


def test_nothing_but_an_image() -> None:
    assert plan("busybox") == Definition(
        "web", "busybox", sources=plan("busybox").sources, writable_layer=WritableLayer.KEEP
    )


@pytest.mark.parametrize(
    ("line", "field", "expected"),
    [
        ("busybox echo -n hello", "command", ("echo", "-n", "hello")),
        ("busybox sh -c '%h $HOME'", "command", ("sh", "-c", "%h $HOME")),
        ("--entrypoint /bin/x busybox", "entrypoint", ("/bin/x",)),
        ("--entrypoint '' busybox x", "entrypoint", ()),
        ("""--entrypoint '["a", "b"]' busybox""", "entrypoint", ("a", "b")),
        ("-e A=1 --env B= -e COLOUR -e NOT_SET busybox", "environment", (("A", "1"), ("B", ""), ("COLOUR", "red"))),
        ("-u www:users busybox", "user", "www"),
        ("-u www:users busybox", "group", "users"),
        ("-w /srv busybox", "working_directory", "/srv"),
        ("-h host1 busybox", "hostname", "host1"),
        ("-l a=b --label c busybox", "labels", (("a", "b"), ("c", ""))),
        ("--annotation k=v busybox", "annotations", (("k", "v"),)),
        ("--init busybox", "init", True),
        ("--stop-signal INT busybox", "stop_signal", "SIGINT"),
        ("--stop-timeout 3 busybox", "stop_timeout", 3.0),
        ("--stop-timeout -1 busybox", "stop_timeout", float("inf")),
        ("--network none busybox", "network", Network.NONE),
        ("--net=host busybox", "network", Network.HOST),
        ("--network bridge busybox", "network", Network.PASTA),
        ("-p 8080:80 -p 127.0.0.1:53:53/udp busybox", "ports", (Port(8080, 80), Port(53, 53, 1, "127.0.0.1", "udp"))),
        ("-m 32m --memory-swap 48m busybox", "resources", Resources(memory=32 << 20, swap=16 << 20)),
        ("-m 32m --memory-swap -1 busybox", "resources", Resources(memory=32 << 20, swap=-1)),
        ("--cpus 0.5 --cpu-shares 1024 busybox", "resources", Resources(cpus=0.5, cpu_weight=39)),
        ("--pids-limit 20 busybox", "resources", Resources(pids=20)),
        ("--pids-limit -1 --blkio-weight 500 busybox", "resources", Resources(pids=-1, io_weight=4950)),
        ("--cpus 0 -m 0 busybox", "resources", Resources()),
        ("--read-only --cap-add net_admin,SYS_TIME --cap-drop all busybox", "security", Security(
            add_capabilities=("CAP_NET_ADMIN", "CAP_SYS_TIME"), drop_capabilities=("ALL",), read_only=True)),
        ("--security-opt no-new-privileges --security-opt seccomp=unconfined busybox", "security", Security(
            no_new_privileges=True, seccomp="unconfined")),
        ("--security-opt seccomp=p.json busybox", "security", Security(seccomp="/p.json")),
        ("--security-opt label=disable --userns single busybox", "security", None),
        ("--restart no busybox", "restart", Restart.NO),
        ("--restart unless-stopped busybox", "restart", Restart.ALWAYS),
        ("--restart always busybox", "install", (("WantedBy", ("default.target",)),)),
        ("--restart on-failure:3 busybox", "unit", (
            ("StartLimitIntervalSec", ("1h",)), ("StartLimitBurst", ("4",)))),
        ("--memory-reservation 8m busybox", "service", (("MemoryLow", ("8388608",)),)),
        ("--log-driver none busybox", "service", (("StandardOutput", ("null",)), ("StandardError", ("null",)))),
        ("-v /tmp:/data:ro busybox", "mounts", (Mount(MountType.BIND, "/data", "/tmp", read_only=True),)),
        ("-v tmp:/data busybox", "mounts", (Mount(MountType.VOLUME, "/data", "tmp"),)),
        ("-v ./tmp:/data busybox", "mounts", (Mount(MountType.BIND, "/data", "/tmp"),)),
        ("--mount type=bind,src=/tmp,dst=/data,readonly busybox", "mounts", (
            Mount(MountType.BIND, "/data", "/tmp", read_only=True),)),
        ("--tmpfs /run:size=1m,mode=755,noexec busybox", "mounts", (
            Mount(MountType.TMPFS, "/run", size=1 << 20, mode=0o755, options=("noexec",)),)),
    ],
)  # fmt: skip
def test_options(line: str, field: str, expected: Any) -> None:
    value = getattr(plan(line), field)
    if expected is not None:
        assert value == expected


def test_anonymous_volumes_get_names_of_their_own() -> None:
    one, two = plan("-v /a --mount type=volume,target=/b busybox").mounts
    assert (one.type, two.type) == (MountType.VOLUME, MountType.VOLUME)
    assert len({one.source, two.source}) == 2
    assert all(len(each.source) == 64 for each in (one, two))


def test_ports_that_are_left_open() -> None:
    assert complete_port("8080:80/udp") == "8080:80/udp"
    host, container = complete_port("80").split(":")
    assert 1024 <= int(host) <= 65535 and container == "80"
    address, host, container = complete_port("127.0.0.1::80/udp").split(":")
    assert (address, container) == ("127.0.0.1", "80/udp") and host.isdecimal()
    assert complete_port("x") == "x"  # the definition's parser says what is wrong


def test_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# comment\nA=from file\nB=2\nCOLOUR\n")
    (tmp_path / "labels").write_text("# comment\n\na=1\n")
    line = f"--env-file {tmp_path}/env -e A=1 --label-file {tmp_path}/labels -l a=2 busybox"
    assert plan(line).environment == (("A", "1"), ("B", "2"), ("COLOUR", "red"))
    assert plan(line).labels == (("a", "2"),)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-p 80:99999 busybox", "--publish:"),
        ("-p 80:80 -p 80:81 busybox", "--publish:"),
        ("-v /nowhere/x:/data busybox", "/nowhere/x: the source of the mount on /data does not exist"),
        ("-v a:b busybox", "--volume, --mount or --tmpfs:"),
        ("--mount type=bind,bogus=1 busybox", '--mount: "bogus=1" is not possible'),
        ("-m 12 busybox", "--memory:"),
        ("-m abc busybox", "--memory:"),
        ("--memory-swap 12m busybox", "it needs --memory"),
        ("--cpus abc busybox", '--cpus: "abc" is no number'),
        ("--pids-limit x busybox", "--pids-limit:"),
        ("--network mynet busybox", 'there is no network "mynet"'),
        ("--restart sometimes busybox", "is no policy"),
        ("--restart always:3 busybox", "is no policy"),
        ("--security-opt apparmor=x busybox", "is not possible"),
        ("--userns host busybox", "--userns:"),
        ("--log-driver json-file busybox", "the log is the journal"),
        ("-u '' busybox", "--user:"),
        ("-h 'a b' busybox", "--hostname:"),
        ("--cap-add FLY busybox", "--cap-add:"),
        ("--stop-signal FOO busybox", "--stop-signal:"),
        ("-e =x busybox", "has no name"),
        ("-l =x busybox", "has no name"),
        ("--env-file /nowhere busybox", "cannot read the environment file"),
        ("Not/Valid", "the image:"),
        ("--entrypoint '[1]' busybox", "texts only"),
        ("--rm --restart always busybox", "--rm:"),
    ],
)
def test_what_is_wrong_is_said_by_option(line: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        plan(line)
    assert message in str(caught.value)


def test_streams_and_removal() -> None:
    both, removed = plan("-it busybox"), plan("--rm --tty=false busybox")
    assert (both.interactive, both.terminal, both.remove) == (True, True, False)
    assert both.writable_layer == "keep"
    assert (removed.interactive, removed.terminal, removed.remove) == (False, False, True)
    assert removed.writable_layer == "fresh"  # nothing of it is to be kept


def test_small_parsers() -> None:
    assert parse_entrypoint("[x") == ["[x"]
    assert parse_mount("type=tmpfs,target=/x,tmpfs-size=1m") == {
        "type": "tmpfs",
        "target": "/x",
        "size": "1m",
    }
    assert parse_mount("type=bind,src=/a,target=/b,bind-propagation=rslave,ro=false")["read_only"] is False
    assert parse_tmpfs("/x") == {"type": "tmpfs", "target": "/x"}
    assert [convert_shares(shares) for shares in (0, 2, 1024, 262144)] == [1, 1, 39, 10000]
