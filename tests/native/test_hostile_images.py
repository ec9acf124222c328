"""Images made to harm: their links, names and texts must reach nothing outside of the container.

A directory of the user's with a secret stands for the host. Whether such a container starts or is refused does not
matter, as long as nothing in that directory is read, made, changed or removed.
"""

from __future__ import annotations

import json
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.containers import Container, run, wait_until
from tests.support.fakeregistry import file, member
from tests.support.images import ImageMaker, Member, directory, hard_link, symlink

SECRET = "the host's own secret"


@dataclass
class Victim:
    """What the image is after."""

    path: Path

    @property
    def up(self) -> str:
        return "../../../../../../../../.." + str(self.path)

    def describe(self) -> list[tuple[str, int, int, str]]:
        found = []
        for path in sorted((self.path, *self.path.rglob("*"))):
            status = path.lstat()
            content = path.read_text() if path.is_file() else ""
            found.append((str(path), status.st_mode, status.st_mtime_ns, content))
        return found


@pytest.fixture
def victim() -> Iterator[Victim]:
    """It must be as it was, whatever the test did."""
    path = Path.home() / f"victim-{os.urandom(3).hex()}"
    path.mkdir()
    (path / "secret").write_text(SECRET)
    (path / "inner").mkdir()
    one = Victim(path)
    before = one.describe()
    yield one
    assert one.describe() == before
    run("rm", "-r", str(path))


Start = Callable[..., str]

SNOOP = "cat {paths} > /out/found 2> /out/errors; for p in {targets}; do echo evil > $p/evil; done 2>> /out/errors"


@pytest.fixture
def start(container: Callable[..., Container], tmp_path: Path, victim: Victim) -> Start:
    """Run an image with a command that looks and writes through its links; what the unit said in the end."""

    def run_image(image: str, *paths: str, toml: str = "", command: list[str] | None = None) -> str:
        output = tmp_path / "out"
        output.mkdir(exist_ok=True)
        output.chmod(0o777)
        targets = " ".join(paths)
        snoop = SNOOP.format(paths=" ".join(f"{path} {path}/secret" for path in paths), targets=targets)
        line = "" if command == [] else f"command = {json.dumps(command or ['sh', '-c', snoop])}\n"
        head = "" if "mounts" in toml else f'mounts = ["{output}:/out"]\n'
        one = container(f'image = "{image}"\n{line}network = "none"\nstop_timeout = 0\n{head}{toml}')
        one.start(check=False)
        wait_until(lambda: one.show("ActiveState") in ("inactive", "failed"), f"{one.unit} ends")
        for path in output.iterdir():
            assert SECRET not in path.read_text(errors="replace")
        return "success" if one.show("Result") == "success" else one.show("StatusText")

    return run_image


LINKS = {
    "proc": ["proc"],
    "dev": ["dev"],
    "sys": ["sys"],
    "etc": ["etc"],
    "run": ["run"],
    "tmp": ["tmp"],
    "data": ["data"],
    "all": ["etc", "run", "tmp", "data", "dev", "sys"],
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [*((name, "absolute") for name in LINKS), ("data", "climbing"), ("dev", "climbing"), ("all", "climbing")],
)
def test_links_in_place_of_directories(
    name: str, kind: str, images: ImageMaker, victim: Victim, start: Start, tmp_path: Path
) -> None:
    target = str(victim.path) if kind == "absolute" else victim.up
    image = images.add(f"links-{name}", *(symlink(link, target) for link in LINKS[name]))
    mounts = f'mounts = ["{tmp_path}/out:/out", "v-{name}-{kind}:/data", {{ type = "tmpfs", target = "/data/t" }}]\n'
    start(image, *(f"/{link}" for link in LINKS[name]), toml=mounts)


def test_read_only_root_with_links(images: ImageMaker, victim: Victim, start: Start) -> None:
    """A tmpfs takes the image's content at /run, /tmp and /var/tmp: through no link."""
    links = [symlink(name, str(victim.path)) for name in ("run", "tmp", "var/tmp")]
    start(images.add("ro", *links), "/tmp", "/run", "/var/tmp", toml="security.read_only = true\n")


def test_links_in_place_of_own_files(images: ImageMaker, victim: Victim, start: Start) -> None:
    links = [
        symlink("etc/resolv.conf", f"{victim.path}/secret"),
        symlink("etc/hosts", victim.up + "/secret"),
        symlink("etc/hostname", f"{victim.path}/new"),
        symlink("run/.containerenv", f"{victim.path}/secret"),
        symlink("run/usercontainer-init", f"{victim.path}/secret"),
    ]
    start(images.add("own", *links), "/etc/resolv.conf", "/etc/hosts", "/etc/hostname", toml="init = true\n")


def test_accounts_behind_links_are_the_images(images: ImageMaker, victim: Victim, start: Start) -> None:
    """The host's passwd is not consulted: its users do not exist in the image."""
    user = os.environ["USER"]
    links = [symlink("etc/passwd", "../../../../../../etc/passwd"), symlink("etc/group", "/etc/group")]
    assert f'no user "{user}"' in start(
        images.add("accounts", *links), "/etc/passwd", toml=f'user = "{user}"\n'
    )


def test_accounts_that_are_no_files(images: ImageMaker, victim: Victim, start: Start) -> None:
    """A FIFO would be waited for, a directory not be read."""
    nodes = [member("etc/passwd", tarfile.FIFOTYPE), directory("etc/group")]
    assert start(images.add("fifo", *nodes), toml='user = "5:6"\n') == "success"


def test_volume_takes_no_links(images: ImageMaker, victim: Victim, start: Start, tmp_path: Path) -> None:
    """A new volume is filled from the image's place: a link there, or in it, brings nothing of the host's."""
    nodes: list[Member] = [
        directory("data"),
        symlink("data/secret", f"{victim.path}/secret"),
        symlink("data/up", victim.up),
    ]
    name = f"filled-{os.urandom(3).hex()}"
    mounts = f'mounts = ["{tmp_path}/out:/out", "{name}:/data"]\n'
    start(images.add("volume", *nodes), "/data/secret", "/data/up", toml=mounts)
    data = (
        Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share")
        / f"usercontainerd/volumes/{name}/_data"
    )
    assert {path.name for path in data.iterdir()} == {"secret", "up"}
    assert (data / "secret").is_symlink()


def test_mount_below_a_link_of_a_volume(
    images: ImageMaker, victim: Victim, start: Start, tmp_path: Path
) -> None:
    """One container leaves a link in a volume, at which the next is to mount something."""
    name = f"shared-{os.urandom(3).hex()}"
    image = images.add("plain")
    script = f"ln -s {victim.path} /data/absolute; ln -s {victim.up} /data/climbing; ln -s {victim.path}/inner /data/c"
    base = f'mounts = ["{tmp_path}/out:/out", "{name}:/data"'
    start(
        image, toml=base + "]\n", command=["/bin/busybox", "sh", "-c", script.replace("ln ", "busybox ln ")]
    )
    for link in ("absolute", "climbing", "c"):
        start(image, f"/data/{link}", toml=f'{base}, "{tmp_path}:/data/{link}/inner"]\n')


LAYERS: dict[str, Callable[[Victim], list[Member]]] = {
    "climbing-name": lambda v: [file("../" * 9 + str(v.path)[1:] + "/evil", b"evil")],
    "absolute-name": lambda v: [file(f"{v.path}/evil", b"evil")],
    "through-absolute-link": lambda v: [symlink("link", str(v.path)), file("link/evil", b"evil")],
    "through-climbing-link": lambda v: [symlink("link", v.up), file("link/evil", b"evil")],
    "through-two-links": lambda v: [symlink("a", ".."), symlink("b", "a/../../.."), file(f"b{v.path}/evil", b"x")],
    "overwriting-by-link": lambda v: [symlink("link", f"{v.path}/secret"), file("link", b"evil")],
    "hard-link-to-host": lambda v: [hard_link("stolen", f"{v.path}/secret"), hard_link("x", "../../etc/passwd")],
    "hard-link-by-link": lambda v: [symlink("link", str(v.path)), hard_link("stolen", "link/secret")],
    "hard-link-to-link": lambda v: [
        symlink("link", f"{v.path}/secret"), hard_link("stolen", "link"), file("stolen", b"evil"),
    ],
    "whiteout-by-link": lambda v: [symlink("link", str(v.path)), file("link/.wh.secret")],
    "opaque-by-link": lambda v: [symlink("link", str(v.path)), file("link/.wh..wh..opq")],
    "whiteout-of-parent": lambda _v: [file(".wh...")],
    "whiteout-climbing": lambda v: [file("../" * 9 + str(v.path)[1:] + "/.wh.secret")],
    "mode-by-link": lambda v: [symlink("link", str(v.path)), directory("link", mode=0o777)],
    "replaced-directory": lambda v: [
        directory("d"), symlink("d", str(v.path)), directory("d", mode=0o700), file("d/evil", b"x"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", list(LAYERS))
def test_layers_that_reach_out(name: str, images: ImageMaker, victim: Victim, start: Start) -> None:
    image = images.add(f"layer-{name}", *LAYERS[name](victim))
    start(image, "/link", "/stolen", "/d", str(victim.path))


def test_names_that_climb_are_named(images: ImageMaker, start: Start) -> None:
    assert "leads out of the layer" in start(images.add("climb", file("a/../../evil", b"x")))


def test_overlay_attributes_are_not_taken(images: ImageMaker, victim: Victim, start: Start) -> None:
    """A redirect or an opaque mark of the image's own would change what overlayfs shows."""
    headers = {
        f"SCHILY.xattr.{kind}.overlay.redirect": f"/../../..{victim.path}" for kind in ("user", "trusted")
    }
    start(images.add("redirect", directory("d", pax_headers=headers), file("d/x", b"y")), "/d", "/d/x")


def test_device_nodes_are_left_out(images: ImageMaker, start: Start, tmp_path: Path) -> None:
    nodes: list[Member] = [
        member("memory", tarfile.CHRTYPE, devmajor=1, devminor=1, mode=0o666),
        member("disk", tarfile.BLKTYPE, devmajor=8, devminor=0, mode=0o666),
        file("after", b"there"),
    ]
    script = "ls /memory /disk > /out/listed 2>/dev/null; cat /after > /out/after"
    start(images.add("devices", *nodes), command=["sh", "-c", script])
    assert (tmp_path / "out/listed").read_text() == ""
    assert (tmp_path / "out/after").read_text() == "there"


def test_set_user_id_files_cannot_be_reached(images: ImageMaker, start: Start) -> None:
    """They belong to the user on the host, too: nobody else may get to them."""
    start(images.add("suid", file("bin/evil", b"#!/bin/sh\n", mode=0o6755)))
    store = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "usercontainerd"
    found = [
        path for path in (store / "layers").glob("*/diff/bin/evil") if path.stat().st_mode & stat.S_ISUID
    ]
    assert found
    for path in found:
        closed = [p for p in path.parents if p.is_relative_to(store) and not p.stat().st_mode & 0o077]
        assert closed, f"{path} can be reached by everybody"


TEXTS: dict[str, dict[str, Any]] = {
    "environment-newline": {"Env": ["A=b\nLD_PRELOAD=/evil.so", "PATH=/bin"]},
    "environment-odd": {
        "Env": ["PATH=/bin", "=x", "no-sign", "", "A B=c", "LD_PRELOAD=/evil.so", "NOTIFY_SOCKET=/x"]
    },
    "environment-nul": {"Env": ["PATH=/bin", "A=b\0LD_PRELOAD=/x"]},
    "environment-many": {"Env": ["PATH=/bin", *(f"V{n}={'x' * 100}" for n in range(500))]},
    "user-newline": {"User": "0:0\nroot"},
    "user-path": {"User": "../../etc/passwd"},
    "user-huge": {"User": "4294967295"},
    "user-negative": {"User": "-1"},
    "user-long": {"User": "x" * 100_000},
    "directory-climbing": {"WorkingDir": "/../../../../../.."},
    "directory-relative": {"WorkingDir": "../../.."},
    "directory-newline": {"WorkingDir": "/tmp/a\nb"},
    "directory-nul": {"WorkingDir": "/tmp\0/x"},
    "command-nul": {"Cmd": ["sh", "-c", "true\0x"]},
    "stop-signal": {"StopSignal": "SIGTERM\nKillMode=none"},
    "labels": {"Labels": {"a\nb": "c\0d", "": "x"}},
    "volumes": {"Volumes": {"/../../x": {}, "../y": {}, "\n": {}}},
    "ports": {"ExposedPorts": {"99999/tcp": {}, "x": {}}},
}


@pytest.mark.parametrize("name", list(TEXTS))
def test_texts_of_a_configuration(name: str, images: ImageMaker, victim: Victim, start: Start) -> None:
    settings = {"Cmd": ["sh", "-c", "cat /proc/self/environ > /out/environ; pwd > /out/pwd"], **TEXTS[name]}
    status = start(images.add(f"text-{name}", settings=settings), command=[])
    assert "\n" not in status
    assert "Traceback" not in status


@pytest.mark.parametrize("number", range(3, 9))
def test_working_directory_behind_a_descriptor(
    number: int, images: ImageMaker, start: Start, victim: Victim
) -> None:
    """CVE-2024-21626: a descriptor of the runtime that leads to the host's file system."""
    climb = f"../../../../../..{victim.path}"
    image = images.add("descriptor", settings={"WorkingDir": f"/proc/self/fd/{number}"})
    start(image, command=["/bin/sh", "-c", f"cat {climb}/secret > /out/found; echo evil > {climb}/evil"])
