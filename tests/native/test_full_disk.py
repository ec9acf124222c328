"""Disks that are full or read-only: errors say where, the store stays whole, and what frees space works."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.containers import run
from tests.support.fakeregistry import file
from tests.support.images import ImageMaker
from tests.support.smalldisk import SmallDisk, mount_small_disk

BUSYBOX = "localhost:5000/busybox:latest"
WEB = "localhost:5000/web:latest"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with mount_small_disk(tmp_path) as one:
        yield one


@pytest.mark.parametrize("room", [4, 200, 1400])
def test_pull_onto_a_full_disk(disk: SmallDisk, room: int) -> None:
    """Too little for the records, for the compressed layer, and for the unpacked one."""
    disk.fill(leave=room)
    message = disk.fail("pull", "-q", BUSYBOX)
    assert "free some space" in message
    assert str(disk.path) in message
    disk.assert_whole()
    disk.free()
    disk.container("pull", "-q", BUSYBOX)
    disk.assert_whole()
    assert BUSYBOX.rpartition(":")[0] in disk.container("images").stdout


def test_disk_without_inodes(tmp_path: Path) -> None:
    with mount_small_disk(tmp_path, "size=8m,nr_inodes=40") as disk:
        message = disk.fail("pull", "-q", BUSYBOX)
        assert "free some space" in message
        disk.assert_whole()


def test_what_works_on_a_full_disk(disk: SmallDisk, images: ImageMaker) -> None:
    other = images.add("other", file("large", os.urandom(1_000_000)))
    disk.container("pull", "-q", BUSYBOX)
    disk.container("pull", "-q", other)
    disk.container("tag", other, "localhost/second")
    disk.fill()
    disk.container("pull", "-q", BUSYBOX)  # nothing to do
    assert len(disk.container("images", "-q").stdout.split()) == 2
    message = disk.fail("tag", BUSYBOX, "localhost/new")
    assert str(disk.path) in message
    assert "free some space" in message
    disk.assert_whole()
    disk.container("rmi", "localhost/second")
    disk.container("rmi", other)
    disk.assert_whole()
    assert count_room(disk) > 900
    disk.free()
    disk.container("tag", BUSYBOX, "localhost/new")
    disk.container("pull", "-q", other)
    disk.assert_whole()


@pytest.mark.parametrize("room", [4, 200, 1400])
def test_load_onto_a_full_disk(disk: SmallDisk, tmp_path: Path, room: int) -> None:
    archive = str(tmp_path / "busybox.tar")
    run(
        "skopeo",
        "copy",
        "-q",
        "--src-tls-verify=false",
        f"docker://{BUSYBOX}",
        f"docker-archive:{archive}:{BUSYBOX}",
    )
    disk.fill(leave=room)
    message = disk.fail("load", "-q", "-i", archive)
    assert "free some space" in message
    assert str(disk.path) in message
    disk.assert_whole()
    disk.free()
    disk.container("load", "-q", "-i", archive)
    disk.assert_whole()


def count_room(disk: SmallDisk) -> int:
    """KiB."""
    return int(disk.run("df", "--output=avail", "-k", str(disk.path)).stdout.split()[-1])


@pytest.mark.parametrize("verb", ["load", "import"])
def test_an_archive_without_end(disk: SmallDisk, verb: str) -> None:
    """One member of 8 GiB, as far as its header says, and zeros without end; the disk is its limit."""
    disk.container("pull", "-q", BUSYBOX)
    room = count_room(disk)
    member = tarfile.TarInfo("large")
    member.size = 8 << 30
    header = disk.path.parent / "header"
    header.write_bytes(member.tobuf())
    words = f"usercontainer {verb} -q{' -' if verb == 'import' else ''}"
    result = disk.run("sh", "-c", f"cat {header} /dev/zero | {words}", check=False)
    assert result.returncode == 125
    assert "the archive has to be kept for a while" in result.stderr
    assert "free some space" in result.stderr
    disk.assert_whole()
    assert count_room(disk) == room


def test_read_only_disk(disk: SmallDisk) -> None:
    disk.container("pull", "-q", BUSYBOX)
    disk.make_read_only()
    assert BUSYBOX.rpartition(":")[0] in disk.container("images").stdout
    disk.assert_whole()
    for words in (
        ("pull", "-q", WEB),
        ("tag", BUSYBOX, "localhost/new"),
        ("rmi", BUSYBOX),
        ("create", BUSYBOX),
        ("system", "check", "--repair"),
    ):
        message = disk.fail(*words)
        assert str(disk.path) in message, words
        assert "the file system is read-only" in message, words
