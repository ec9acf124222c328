"""Single images made to harm; ``test_hostile_images.py`` has those that come in numbers.

A directory of the user's with a secret stands for the host. Whether such a container starts or is refused does not
matter, as long as nothing in that directory is read, made, changed or removed.
"""

from __future__ import annotations

import json
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.containers import Container, wait_until
from tests.support.fakeregistry import file, member
from tests.support.images import ImageMaker, Member, directory, symlink
from tests.support.victim import SECRET, Victim

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
        wait_until(lambda: one.has_ended, f"{one.unit} ends")
        for path in output.iterdir():
            assert SECRET not in path.read_text(errors="replace")
        return "success" if one.show("Result") == "success" else one.show("StatusText")

    return run_image


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
