"""What becomes of a layer's entries on disk, in a real user namespace."""

from __future__ import annotations

import os
import stat
import tarfile
from pathlib import Path

import pytest

from tests.support.fakeregistry import FakeRegistry, build_tar, file, member
from tests.support.pulling import SMALL, in_namespace, pull, snapshot, store_of, wait_for_children
from usercontainerd.base.errors import (
    InvalidFormat,
    SubIdsMissing,
)
from usercontainerd.engine.context import Context
from usercontainerd.engine.images.local import open_images
from usercontainerd.engine.images.removal import remove_image
from usercontainerd.engine.transfers.obtaining import pull_image
from usercontainerd.kernel.idmap import plan_single_map

DIR, SYM, LNK = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


def test_everything_that_a_layer_can_hold(context: Context, registry: FakeRegistry) -> None:
    capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0".decode("latin-1")
    layer = build_tar(
        member(".", DIR, mode=0o755, mtime=1_000_000_000),
        member("etc", DIR, mtime=1_100_000_000, uid=3, gid=4),
        file("etc/shadow", b"secret", mode=0o640, gid=42, mtime=1_200_000_000),
        file("bin/su", b"x", mode=0o4755),
        file("bin/ping", b"x", uid=5, pax_headers={"SCHILY.xattr.security.capability": capability}),
        member("bin/hard", LNK, linkname="bin/su", mode=0o4755),
        member("sbin", SYM, linkname="/etc/passwd", uid=7),
        member("srv", DIR, mode=0o2770, gid=33),
        file("srv/file"),
        member("run/fifo", tarfile.FIFOTYPE),
        member("dev/null", tarfile.CHRTYPE, devmajor=1, devminor=3),
        file("usr/.wh.gone"),
        file("usr/lib/.wh..wh..opq"),
        file("x" * 255, b"long"),
        file(
            "user-xattr",
            pax_headers={"SCHILY.xattr.user.note": "hello", "SCHILY.xattr.user.overlay.redirect": "/"},
        ),
        file("top", b"z" * 3_000_000, uid=65535, gid=65535),
    )
    registry.add_image("app", "latest", [layer])
    root = pull(context, registry)
    assert (
        in_namespace(context, "stat", "-c", "%u:%g:%a:%Y", f"{root}/etc/shadow").strip()
        == "0:42:640:1200000000"
    )
    assert in_namespace(context, "stat", "-c", "%u:%g", f"{root}/top").strip() == "65535:65535"
    assert in_namespace(context, "stat", "-c", "%g:%a", f"{root}/srv", f"{root}/srv/file").split() == [
        "33:2770",
        "0:644",
    ]
    assert in_namespace(context, "cat", f"{root}/etc/shadow") == "secret"
    assert (root / "etc").stat().st_mtime == 1_100_000_000
    assert root.stat().st_mtime == 1_000_000_000
    assert (root / "bin" / "su").stat().st_mode & 0o7777 == 0o4755
    assert (root / "bin" / "su").stat().st_nlink == 2
    assert os.readlink(root / "sbin") == "/etc/passwd"
    assert stat.S_ISFIFO((root / "run" / "fifo").stat().st_mode)
    assert not (root / "dev" / "null").exists()
    gone = (root / "usr" / "gone").stat()
    assert stat.S_ISCHR(gone.st_mode)
    assert gone.st_rdev == 0
    assert os.getxattr(root / "usr" / "lib", "user.overlay.opaque") == b"y"
    assert os.listxattr(root / "user-xattr") == ["user.note"]
    # A version 3 capability, bound to this namespace's root.
    value = os.getxattr(root / "bin" / "ping", "security.capability")
    assert value[3] == 3
    assert int.from_bytes(value[20:24], "little") == os.getuid()
    record = open_images(context).layers.read(open_images(context).all()[0].layers[0])
    assert record is not None
    assert any("dev/null" in warning for warning in record.warnings)
    remove_image(context, f"{registry.host}/app")
    assert not root.exists()
    assert snapshot(context) == []


@pytest.mark.parametrize("user_owned", [False, True])
def test_overlayfs_understands_it(
    context: Context, registry: FakeRegistry, tmp_path: Path, user_owned: bool
) -> None:
    owner = 5 if user_owned else 0
    lower = build_tar(
        file("a/old", b"1"), file("a/kept", b"2"), file("b/hidden", b"3"), file("c/x", uid=owner)
    )
    upper = build_tar(
        file("a/.wh.old"), file("b/.wh..wh..opq"), file("b/new", b"4", uid=owner), file(".wh.c"), file("c/y")
    )
    registry.add_image("app", "latest", [lower, upper])
    record = pull_image(context, f"{registry.host}/app")
    # mount(8) takes no more than 256 bytes for one option: relative paths.
    lowers = ":".join(f"{diff_id.hex}/diff" for diff_id in reversed(record.layers))
    mount = f"mount -t overlay overlay -o userxattr,lowerdir={lowers} {tmp_path}/m"
    script = f"cd {store_of(context).layers} && {mount} && cd {tmp_path}/m && find . | sort"
    (tmp_path / "m").mkdir()
    names = in_namespace(context, "sh", "-c", script).split()
    assert names == [".", "./a", "./a/kept", "./b", "./b/new", "./c", "./c/y"]


@pytest.mark.parametrize(
    "members",
    [
        [file("../escaped", b"x")],
        [file("/../../escaped", b"x")],
        [member("l", LNK, linkname="../../../../etc/passwd")],
        [member("l", SYM, linkname="/"), file("l/../../../../escaped", b"x")],
    ],
)
def test_climbing_is_refused(
    context: Context, registry: FakeRegistry, members: list[tarfile.TarInfo]
) -> None:
    registry.add_image("app", "latest", [build_tar(*members)])
    before = snapshot(context)
    with pytest.raises(InvalidFormat, match=r"leads out of the layer|not in its layer"):
        pull(context, registry)
    assert snapshot(context) == before
    wait_for_children()


def test_symlinks_lead_nowhere_but_inside(context: Context, registry: FakeRegistry, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    layer = build_tar(
        member("abs", SYM, linkname=str(victim)),
        member("up", SYM, linkname="../../../../../../../../../../.."),
        member("proc", SYM, linkname="/proc/self/cwd"),
        file("abs/evil", b"x"),
        file(f"up{tmp_path}/victim/evil2", b"x"),
        member("dir", SYM, linkname=f"up{tmp_path}"),
        file("dir/evil3", b"x"),
        member("l2", LNK, linkname="abs/evil"),
        file("abs/.wh.victim"),
    )
    registry.add_image("app", "latest", [layer])
    try:
        pull(context, registry)
    except InvalidFormat:
        pass
    assert os.listdir(victim) == []
    assert not (tmp_path / "evil3").exists()
    inside = [path for path in snapshot(context) if "evil" in path]
    assert all("/layers/" in path for path in inside)


def test_code_in_a_layer_is_never_run(context: Context, registry: FakeRegistry) -> None:
    trap = b"import os\nos.mkdir('/TRAPPED')\n"
    places = [
        f"usr/lib/python3.{n}/{name}.py" for n in range(11, 16) for name in ("traceback", "codecs", "shutil")
    ]
    members = [file(place, trap) for place in places]
    members += [
        file(f"usr/lib/x86_64-linux-gnu/{lib}", b"\x7fELF") for lib in ("libgcc_s.so.1", "libnss_files.so.2")
    ]
    layer = build_tar(*members, file("x", uid=1 << 33))
    registry.add_image("app", "latest", [layer])
    with pytest.raises(SubIdsMissing, match="8589934592"):
        pull(context, registry)
    assert not any("TRAPPED" in path for path in snapshot(context))


def test_deep_nesting_is_deleted_again(context: Context, registry: FakeRegistry) -> None:
    # Each symlink shortens the name, so that the tree becomes deeper than a path can be long.
    members: list[tarfile.TarInfo] = []
    base = "d/" * 1000
    members.append(member(base, DIR))
    members.append(member("s", SYM, linkname=base))
    members.append(member("s/" + base, DIR))
    registry.add_image("app", "latest", [build_tar(*members)])
    root = pull(context, registry)
    assert (root / "s").is_symlink()
    remove_image(context, f"{registry.host}/app")
    assert os.listdir(store_of(context).trash) == []


def test_owner_beyond_the_mapping(context: Context, registry: FakeRegistry) -> None:
    registry.add_image("app", "latest", [build_tar(file("x", uid=70_000))])
    with pytest.raises(SubIdsMissing, match=r"user ID 70000, but only the IDs 0, 1 to 65536.*/etc/subuid"):
        pull(context, registry)
    assert snapshot(context) == []


def test_without_subordinate_ids(
    context: Context, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "usercontainerd.kernel.idmap.read_id_map", lambda uid, gid, _user: plan_single_map(uid, gid)
    )
    registry.add_image("app", "latest", [SMALL])
    assert (pull(context, registry) / "bin" / "sh").exists()
    registry.add_image("app", "other", [build_tar(file("x", gid=42))])
    with pytest.raises(SubIdsMissing, match=r"group ID 42, but only the ID 0 is mapped"):
        pull(context, registry, "app:other")
