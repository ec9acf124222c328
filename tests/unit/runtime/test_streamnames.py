"""Which containers are taken for ones that open their output by name, in a root that may be hostile."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from usercontainerd.runtime import streamnames
from usercontainerd.runtime.streamnames import (
    Command,
    Search,
    find_name,
    parse_command,
    render_command,
)

PATH = "/usr/local/bin:/usr/bin:/bin"


def put(root: Path, path: str, text: str | bytes = "") -> Path:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(text.encode() if isinstance(text, str) else text)
    return target


def find(root: Path, *arguments: str, environment: tuple[str, ...] = (), directory: str = "/") -> str:
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        return Search(fd).find_reason(Command(arguments or ("sleep", "1"), environment, directory, PATH))
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (b"ErrorLog /proc/self/fd/2\n", "/proc/self/fd/2"),
        (b"a\n  access_log  /dev/stdout  main;", "/dev/stdout"),
        (b"exec 2>/dev/stderr", "/dev/stderr"),
        (b"* * * * * /job >/proc/1/fd/1", "/proc/1/fd/1"),
        (b"--log=/dev/fd/1", "/dev/fd/1"),
        (b"# log /dev/stdout\n ; and /dev/stderr\n// /dev/fd/1\n<!-- /dev/fd/2 -->", None),
        (b"# log /dev/stdout\nlog /dev/stdout\n", "/dev/stdout"),
        (b"/dev/fd/10 /proc/self/fd/22 /dev/stdouts /dev/stdin /proc/self/fd/0", None),
        (b"", None),
    ],
)
def test_names(text: bytes, name: str | None) -> None:
    assert find_name(text) == name


def test_a_command_goes_over_a_pipe() -> None:
    command = Command(["sh", "-c", "a\nb", ""], ["A=1", "B=\udcff"], "/srv", PATH)
    again = parse_command(render_command(command))
    for name in Command.__slots__:
        assert getattr(again, name) == getattr(command, name)
    assert parse_command(b"").arguments == ()


def test_the_command_and_its_environment(tmp_path: Path) -> None:
    assert find(tmp_path, "app", "--log=/dev/stdout") == "the command has /dev/stdout"
    assert find(tmp_path, "app", environment=("LOG=/dev/stderr",)) == "the variable LOG has /dev/stderr"
    assert find(tmp_path) == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("/entry.sh", "app"),
        ("entry.sh",),
        ("tini", "--", "/srv/entry.sh"),
        ("./entry.sh",),
        ("dumb-init", "bin/entry.sh"),
        ("sh", "-c", "cd /; exec /srv/entry.sh --foreground"),
        ("sh", "-c", '"/srv/entry.sh" && sleep 1'),
        ("app", "--config=/srv/entry.sh"),
    ],
)
def test_scripts_and_files_that_the_command_names(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    for path in ("entry.sh", "usr/local/bin/entry.sh", "srv/entry.sh", "srv/bin/entry.sh"):
        put(tmp_path, path, "#!/bin/sh\necho x > /dev/stderr\n")
    assert find(tmp_path, *arguments, directory="/srv").endswith("entry.sh has /dev/stderr")
    assert find(tmp_path, "sleep", "1", directory="/tmp") == ""


def test_a_script_that_a_script_runs(tmp_path: Path) -> None:
    put(tmp_path, "entry.sh", "#!/bin/sh\n. /opt/scripts/log.sh\n")
    put(tmp_path, "opt/scripts/log.sh", "log() { echo $* > /dev/stderr; }\n")
    assert find(tmp_path, "/entry.sh") == "/opt/scripts/log.sh has /dev/stderr"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("sh", "-c", "date"), "sh runs other programs"),
        (("tini", "--", "/bin/bash", "x"), "/bin/bash runs other programs"),
        (("sh",), ""),
        (("/plain.sh", "program"), "/plain.sh is a script"),
        (("program", "-c", "/x"), ""),
    ],
)
def test_shells_and_scripts(tmp_path: Path, arguments: tuple[str, ...], reason: str) -> None:
    put(tmp_path, "plain.sh", '#!/bin/sh\nexec "$@"\n')
    put(tmp_path, "usr/bin/program", b"\x7fELF\0")
    assert find(tmp_path, *arguments) == reason


@pytest.mark.parametrize(
    "path",
    [
        "etc/nginx/nginx.conf",
        "etc/crontabs/root",
        "usr/local/etc/php-fpm.d/docker.conf",
        "usr/local/apache2/conf/httpd.conf",
        "opt/app/etc/app",
        "opt/maker/app/conf/app.xml",
        "docker-entrypoint.d/10-links.sh",
        "conf/app.yaml",
        "srv/gunicorn.conf.py",
    ],
)
def test_configuration(tmp_path: Path, path: str) -> None:
    put(tmp_path, path, "log /dev/stdout\n")
    assert find(tmp_path, directory="/srv") == f"/{path} has /dev/stdout"


@pytest.mark.parametrize(
    "path", ["etc/init.d/app", "etc/ssl/x.conf", "etc/app.pem", "usr/share/doc/app", "srv/a/b.conf"]
)
def test_what_is_not_read(tmp_path: Path, path: str) -> None:
    put(tmp_path, path, "log /dev/stdout\n")
    assert find(tmp_path, directory="/srv") == ""


@pytest.mark.parametrize("target", ["/dev/stdout", "../../../dev/stderr", "/proc/self/fd/2"])
@pytest.mark.parametrize(
    "path", ["var/log/a/access.log", "opt/m/app/logs/x", "usr/local/app/logs/x", "srv/logs/x"]
)
def test_links(tmp_path: Path, path: str, target: str) -> None:
    link = put(tmp_path, path)
    link.unlink()
    link.symlink_to(target)
    assert find(tmp_path, directory="/srv") == f"/{path} is a link to {target}"


def outside(tmp_path: Path) -> str:
    put(tmp_path, "outside/etc/app.conf", "log /dev/stdout\n")
    return str(tmp_path / "outside")


def link_to(target: str, path: str) -> Callable[[Path, str], None]:
    def make(root: Path, out: str) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).symlink_to(target.format(out=out))

    return make


@pytest.mark.parametrize(
    "make",
    [
        link_to("{out}/etc", "etc"),
        link_to("../outside/etc", "etc"),
        link_to("{out}/etc/app.conf", "entry.sh"),
        link_to("{out}/etc/app.conf", "etc/app.conf"),
        link_to("{out}", "opt/app"),
        link_to(".", "etc/loop"),
        link_to("etc", "etc"),
    ],
)
def test_no_link_leads_out(tmp_path: Path, make: Callable[[Path, str], None]) -> None:
    root = tmp_path / "root"
    root.mkdir()
    make(root, outside(tmp_path))
    assert find(root, "/entry.sh") == ""


def test_files_of_odd_kinds_and_sizes(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    os.mkfifo(tmp_path / "etc/fifo.conf")
    os.mkfifo(tmp_path / "entry.sh")
    put(tmp_path, "usr/bin/program", b"\x7fELF\0" + b"/dev/stdout")
    with open(tmp_path / "etc/large.conf", "wb") as file:
        file.truncate(1 << 40)
    put(tmp_path, "etc/long.conf", b"x" * (streamnames.MAX_FILE + 5000) + b"/dev/stdout")
    before = time.process_time()
    assert find(tmp_path, "/entry.sh", "program") == ""
    assert time.process_time() - before < 5


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "conf/app.conf", "log /dev/stdout\n")
    for number in range(50):
        put(tmp_path, f"etc/d/{number}.conf", "x" * 1000)
    put(tmp_path, "etc/" + "d/" * 20 + "deep.conf", "log /dev/stdout\n")
    assert find(tmp_path) == "/conf/app.conf has /dev/stdout"
    for name, value in (("MAX_ENTRIES", 20), ("MAX_TOTAL", 10_000), ("MAX_SECONDS", -1.0)):
        with monkeypatch.context() as patch:
            patch.setattr(streamnames, name, value)
            assert find(tmp_path) == ""
