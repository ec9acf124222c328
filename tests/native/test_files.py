"""What a container's files become: its own changes, volumes, binds, tmpfs."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.containers import Container
from tests.support.fakeregistry import build_tar, file, member
from tests.support.images import ImageMaker, Member, directory, hard_link, symlink

Make = Callable[..., Container]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    path = tmp_path / "out"
    path.mkdir()
    path.chmod(0o777)
    return path


def define(image: str, script: str, mounts: list[object], more: str = "") -> str:
    """``mounts``: texts, or tables in TOML's inline form."""
    listed = ", ".join(mount if str(mount).startswith("{") else json.dumps(mount) for mount in mounts)  # type: ignore[misc]
    command = json.dumps(["sh", "-c", script])
    return f'image = "{image}"\ncommand = {command}\nnetwork = "none"\nmounts = [{listed}]\n{more}'


def run_once(one: Container) -> None:
    one.start()
    log = one.finish()
    assert one.show("Result") == "success", log


def volume_directory(name: str) -> Path:
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return Path(data) / f"usercontainerd/volumes/{name}/_data"


def unique(name: str) -> str:
    return f"{name}-{os.urandom(3).hex()}"


def test_volume_takes_the_images_content_at_first(container: Make, images: ImageMaker, output: Path) -> None:
    """With owners and modes, once; later the volume's own content counts."""
    image = images.add(
        "filled",
        directory("data", uid=5, gid=6, mode=0o750),
        file("data/file", b"the image's", uid=1000, gid=1000, mode=0o640),
        symlink("data/link", "file"),
        member("data/empty", b"5", mode=0o711),
    )
    name = unique("filled")
    script = (
        "cat /data/link >> /out/read; stat -c '%%u:%%g %%a' /data /data/file > /out/stat; "
        "readlink /data/link >> /out/stat; echo changed > /data/file"
    )
    one = container(define(image, script, [f"{output}:/out", f"{name}:/data"]))
    run_once(one)
    run_once(one)
    assert (output / "read").read_text() == "the image'schanged\n"
    assert (output / "stat").read_text() == "5:6 750\n1000:1000 640\nfile\n"
    assert not volume_directory(name).with_name("_data.new").exists()


def test_volume_stays_empty_if_told_so(container: Make, images: ImageMaker, output: Path) -> None:
    image = images.add("nocopy", directory("data"), file("data/file", b"the image's"))
    one = container(
        define(image, "ls /data > /out/list", [f"{output}:/out", f"{unique('nocopy')}:/data:nocopy"])
    )
    run_once(one)
    assert (output / "list").read_text() == ""


def test_volume_is_shared_by_name(container: Make, images: ImageMaker, output: Path) -> None:
    image, name = images.add("shared"), unique("shared")
    run_once(container(define(image, "echo one > /a/file", [f"{name}:/a"])))
    run_once(container(define(image, "cat /b/file > /out/file", [f"{name}:/b:ro", f"{output}:/out"])))
    assert (output / "file").read_text() == "one\n"


def test_anonymous_volumes_are_apart(container: Make, images: ImageMaker, output: Path) -> None:
    """Two without a name, in one container and in another: none sees what is in the others."""
    image = images.add("anonymous")
    script = "ls /a /b > /out/{0}; echo x > /a/a-{0}; echo x > /b/b-{0}"
    for number in range(2):
        run_once(container(define(image, script.format(number), [f"{output}:/out", "/a", "/b"])))
    assert (output / "0").read_text() == "/a:\n\n/b:\n"
    assert (output / "1").read_text() == "/a:\n\n/b:\n"


def test_own_changes_are_gone_at_the_next_start(container: Make, images: ImageMaker, output: Path) -> None:
    image = images.add("fresh", file("etc/motd", b"the image's\n"))
    script = "cat /etc/motd /new >> /out/read 2>/dev/null; echo changed > /etc/motd; echo new > /new; rm /etc/group"
    one = container(define(image, script, [f"{output}:/out"]))
    run_once(one)
    run_once(one)
    assert (output / "read").read_text() == "the image's\nthe image's\n"


def test_own_changes_are_kept(container: Make, images: ImageMaker, output: Path) -> None:
    image = images.add("kept", file("etc/motd", b"the image's\n"))
    script = "cat /etc/motd /new >> /out/read 2>/dev/null; echo changed > /etc/motd; echo new > /new; rm -f /etc/group"
    one = container(define(image, script, [f"{output}:/out"], 'writable_layer = "keep"\n'))
    run_once(one)
    run_once(one)
    assert (output / "read").read_text() == "the image's\nchanged\nnew\n"


def test_bind_of_a_file_and_a_directory(
    container: Make, images: ImageMaker, output: Path, tmp_path: Path
) -> None:
    """Read-only ones cannot be written, a missing source is an error unless it is to be made."""
    (tmp_path / "file").write_text("from the host")
    (tmp_path / "closed").mkdir()
    image = images.add("bind")
    made = tmp_path / "made/inside"
    script = (
        "cat /etc/own.conf > /out/read; touch /closed/x 2>/dev/null && echo wrote > /out/wrote; "
        "touch /made/x; touch /out/mine; chown 1000 /out/mine"
    )
    mounts: list[object] = [
        f"{output}:/out",
        f"{tmp_path}/file:/etc/own.conf:ro",
        f"{tmp_path}/closed:/closed:ro",
        f'{{ type = "bind", source = "{made}", target = "/made", create = true }}',
    ]
    run_once(container(define(image, script, mounts)))
    assert (output / "read").read_text() == "from the host"
    assert not (output / "wrote").exists()
    assert (made / "x").stat().st_uid == os.getuid()
    assert (output / "mine").stat().st_uid == 100_999
    missing = container(define(image, "true", [f"{tmp_path}/nowhere:/x"]))
    assert missing.start(check=False).returncode != 0
    assert f"{tmp_path}/nowhere" in missing.show("StatusText")


def test_paths_with_odd_characters(container: Make, images: ImageMaker, output: Path, tmp_path: Path) -> None:
    """Commas, colons, quotes, spaces, newlines are syntax to somebody: not here."""
    odd = tmp_path / "a,b:c d'e\"f\\g%h$i"
    odd.mkdir()
    (odd / "file").write_text("found")
    target = "/t,u v'w%x$y"
    # A percent sign begins a specifier in a definition.
    source, place = (json.dumps(text.replace("%", "%%")) for text in (str(odd), target))
    table = f'{{ type = "bind", source = {source}, target = {place} }}'
    script = 'cat "/t,u v\'w%%x\\$y/file" > /out/read'
    run_once(container(define(images.add("odd"), script, [f"{output}:/out", table])))
    assert (output / "read").read_text() == "found"


def test_tmpfs_with_size_and_mode(container: Make, images: ImageMaker, output: Path) -> None:
    table = '{ type = "tmpfs", target = "/scratch", size = "1M", mode = "0700" }'
    script = "stat -c %%a /scratch > /out/mode; cd /scratch; head -c 3000000 /dev/zero > x; stat -c %%s x > /out/size"
    one = container(define(images.add("tmpfs"), script, [f"{output}:/out", table]))
    one.start()
    one.finish()
    assert (output / "mode").read_text() == "700\n"
    assert int((output / "size").read_text()) <= 1 << 20


def test_files_of_all_kinds_come_from_the_image(container: Make, images: ImageMaker, output: Path) -> None:
    """Owners, modes, links and whiteouts of two layers, as the container sees them."""
    kept = file("d/kept", b"kept", uid=3, gid=4, mode=0o4711)
    lower: list[Member] = [directory("d", mode=0o1777), file("d/gone", b"x"), kept, symlink("s", "d/kept")]
    lower += [directory("e"), file("e/gone", b"x")]
    top: list[Member] = [
        directory("d", mode=0o1777),
        file("d/.wh.gone"),
        directory("e"),
        file("e/.wh..wh..opq"),
    ]
    upper = build_tar(*top, file("e/new", b"x"), hard_link("e/hard", "e/new"))
    image = images.add("kinds", *lower, layers=(upper,))
    script = "stat -c '%%n %%u:%%g %%a %%F' /d /d/kept > /out/stat; cat /s > /out/read; ls /d /e > /out/list"
    run_once(container(define(image, script, [f"{output}:/out"])))
    assert (output / "stat").read_text() == "/d 0:0 1777 directory\n/d/kept 3:4 4711 regular file\n"
    assert (output / "read").read_text() == "kept"
    assert (output / "list").read_text() == "/d:\nkept\n\n/e:\nhard\nnew\n"


def test_volume_directory_is_not_for_others(container: Make, images: ImageMaker) -> None:
    name = unique("private")
    run_once(container(define(images.add("private"), "true", [f"{name}:/data"])))
    parents = [volume_directory(name), *volume_directory(name).parents]
    assert any(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in parents[:4])
