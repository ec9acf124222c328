"""What is in images: `image diff`, `tree`, `mount`, `unshare`, and `system df`."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

from tests.native.test_image_verbs import cli, here, image_id, lines, nothing_here, out
from tests.support.containers import BUSYBOX, run, wait_until
from tests.support.fakeregistry import build_tar, file, member
from tests.support.images import ImageMaker, directory, hard_link, symlink

WEB = "localhost:5000/web:latest"
__all__ = ["here", "nothing_here"]


def unshared(script: str, *, status: int = 0) -> subprocess.CompletedProcess[str]:
    return cli("unshare", "sh", "-c", script, status=status)


def changes(*words: str) -> set[str]:
    return set(lines("image", "diff", *words))


def test_diff_is_podmans() -> None:
    run("podman", "pull", "-q", "--tls-verify=false", WEB, BUSYBOX)
    for words in ((WEB,), (BUSYBOX,), (WEB, BUSYBOX), ("--format", "json", WEB)):
        ours, theirs = cli("image", "diff", *words).stdout, run("podman", "image", "diff", *words).stdout
        if "json" in words:
            assert json.loads(ours) == json.loads(theirs)
        else:
            # podman hides what a container's start would make anew.
            shown = [line for line in ours.splitlines() if line[2:] not in ("/dev", "/proc", "/sys", "/run")]
            assert sorted(shown) == sorted(theirs.splitlines()), words
    assert "possible is json" in cli("image", "diff", "--format", "x", WEB, status=125).stderr
    assert "nosuch" in cli("image", "diff", "nosuch", status=125).stderr
    assert "nosuch" in cli("image", "diff", WEB, "nosuch", status=125).stderr


def test_diff_between_images(images: ImageMaker) -> None:
    below = (
        directory("d"), file("d/kept", b"1", mtime=5), file("d/gone", b"1"), file("d/changed", b"1", mtime=5),
        directory("private", mode=0o700, uid=7), file("private/x", b"1", uid=7), symlink("link", "one"),
        directory("emptied"), file("emptied/a", b"1"), directory("same"), file("same/file"),
    )  # fmt: skip
    above = (
        file("d/.wh.gone"), file("d/changed", b"22", mtime=5), file("d/new\n", b""), file("private/y", uid=7),
        member("emptied/.wh..wh..opq"), file("emptied/b"), symlink("link", "two"), hard_link("hard", "d/changed"),
    )  # fmt: skip
    old = images.add("old", layers=(build_tar(*below),))
    new = images.add("new", layers=(build_tar(*below), build_tar(*above)))
    # The same files as the new one has, of a layer of its own: no inode is the same.
    flat = images.add("flat", layers=(build_tar(*below, file("own")),))
    cli("pull", "-q", old, new, flat)
    expected = {
        "C /d", "D /d/gone", "C /d/changed", "A /d/new\\n", "C /private", "A /private/y", "C /emptied", "D /emptied/a",
        "A /emptied/b", "C /link", "A /hard",
    }  # fmt: skip
    assert changes(new, old) == expected
    assert changes(new) >= expected - {"C /emptied"}
    assert changes(old, new) == {
        f"{ {'A': 'D', 'D': 'A', 'C': 'C'}[each[0]] }{each[1:]}" for each in expected
    }
    assert changes(flat, old) == {"A /own"}
    assert changes(old, old) == changes(old, image_id(old)) == set()


def test_tree(images: ImageMaker) -> None:
    base = images.add("base")
    one = images.add("one", layers=(build_tar(file("1")),))
    two = images.add("two", layers=(build_tar(file("1")), build_tar(file("2"))))
    other = images.add("other", layers=(build_tar(file("3", b"x" * 1234)),))
    cli("pull", "-q", base, one, two, other)
    shown = lines("image", "tree", two)
    assert shown[0] == f"Image ID: {image_id(two)[:12]}" and shown[1] == f"Tags:     [{two}]"
    assert re.match(r"Size:     [0-9.]+MB", shown[2]) and shown[3] == "Image Layers"
    layers = json.loads(out("image", "inspect", "-f", "{{json .RootFS.Layers}}", two))
    for line, layer, mark, name in zip(shown[4:], layers, "├├└", (base, one, two), strict=True):
        pattern = rf"{mark}── ID: {layer[7:19]} Size: [0-9.]+k?M?B Top Layer of: \[{re.escape(name)}\]"
        assert re.fullmatch(pattern, line), line
    required = out("image", "tree", "--whatrequires", base).splitlines()[4:]
    drawn = sorted(re.sub(r"ID: .* of: \[.*/(.*):latest\]", r"\1", line) for line in required)
    assert drawn in (
        sorted(["└── base", "    ├── one", "    │   └── two", "    └── other"]),
        sorted(["└── base", "    ├── other", "    └── one", "        └── two"]),
    )
    assert "1.234kB" in "\n".join(required)
    assert "nosuch" in cli("image", "tree", "nosuch", status=125).stderr


def test_unshare() -> None:
    assert unshared("id -u; id -g").stdout.split() == ["0", "0"]
    assert len(unshared("cat /proc/self/uid_map").stdout.splitlines()) > 1
    unshared("exit 7", status=7)
    assert "no such command" in cli("unshare", "no-such-command", status=127).stderr
    assert "cannot be run" in cli("unshare", "/etc/passwd", status=126).stderr
    unshared("mount -t tmpfs tmpfs /mnt && touch /mnt/x")
    assert not os.path.exists("/mnt/x")
    # The command can be stopped by a closed pipe, as from a shell.
    assert unshared("trap - PIPE; yes | head -1; usercontainer unshare id -u").stdout.split() == ["y", "0"]
    result = subprocess.run(
        ["usercontainer", "unshare"], input="echo shell $((6*7))", capture_output=True, text=True, check=True
    )
    assert "shell 42" in result.stdout


def test_mount(images: ImageMaker) -> None:
    hidden = images.add("hidden", file("bin/.wh.true"), file("owned", b"1", uid=55, mode=0o600))
    cli("pull", "-q", hidden)
    result = unshared(
        f"set -e; cd /; place=$(usercontainer image mount {BUSYBOX}); ls -l $place/bin/busybox >&2\n"
        f"usercontainer image mount {WEB} {hidden}\n"
        "usercontainer image mount --format json\n"
        "! touch $place/file 2>/dev/null\n"
        f"other=$(usercontainer image mount {hidden}); stat -c %u $other/owned >&2; test ! -e $other/bin/true\n"
    )
    assert result.stderr.splitlines()[-1] == "55"
    listed = result.stdout.splitlines()
    assert listed[0].split()[0] == WEB and listed[1].split()[0] == hidden
    assert os.path.isabs(listed[0].split()[1])
    mounts = json.loads("\n".join(listed[2:]))
    assert {each["id"] for each in mounts} == {image_id(name) for name in (BUSYBOX, WEB, hidden)}
    assert {tuple(each["Repositories"]) for each in mounts} == {(BUSYBOX,), (WEB,), (hidden,)}
    runtime = Path(os.environ["XDG_RUNTIME_DIR"]) / "usercontainerd/image-mounts"
    assert not [each for each in runtime.iterdir() if each.is_dir() and any(each.iterdir())]


def test_unmount() -> None:
    result = unshared(
        f"for i in 1 2 3; do usercontainer image mount {BUSYBOX} >&2; done\n"
        "count() { grep -c image-mounts /proc/self/mountinfo; }\n"
        f"count; usercontainer image unmount {BUSYBOX}; count; usercontainer image umount -f {BUSYBOX}; count\n"
        f"usercontainer image unmount {BUSYBOX}; usercontainer image mount -a >&2; count\n"
        "usercontainer image unmount -a | wc -l; count; usercontainer image mount"
    )
    identity = image_id(BUSYBOX)
    assert result.stdout.split() == ["3", identity, "2", identity, "0", "2", "2", "0"]
    assert len(set(result.stderr.splitlines()[:3])) == 1
    for words in (["mount", BUSYBOX], ["mount"], ["unmount", BUSYBOX]):
        assert "usercontainer unshare" in cli("image", *words, status=125).stderr
    assert "nosuch" in unshared("usercontainer image mount nosuch", status=125).stderr
    assert "--all" in cli("image", "unmount", status=125).stderr


def test_a_mounted_image_stays() -> None:
    script = (
        f"usercontainer image mount {WEB}; read word; cat $(usercontainer image mount {WEB})/www/index.html"
    )
    with subprocess.Popen(
        ["usercontainer", "unshare", "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        assert "image-mounts" in process.stdout.readline()
        assert "is mounted" in cli("rmi", WEB, status=2).stderr
        assert image_id(WEB) not in out("image", "prune", "-a", "-f")
        process.stdin.write("go on\n")
        process.stdin.flush()
        assert process.stdout.read() != ""
    assert process.returncode == 0
    cli("rmi", WEB)


def test_a_mounted_image_that_is_removed(images: ImageMaker) -> None:
    """By force its name goes; its files stay for all who have it mounted, and go with the first removal after that."""
    name = images.add("held", file("held", os.urandom(200_000)))
    cli("pull", "-q", name)
    layers = Path(os.environ["HOME"], ".local/share/usercontainerd/layers")
    before = set(os.listdir(layers))
    script = f"place=$(usercontainer image mount {name}) && echo $place; read word; wc -c < $place/held"
    words = ["usercontainer", "unshare", "sh", "-c", script]
    one, other = (
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    )
    with one, other:
        for process in (one, other):
            assert process.stdout is not None
            assert "image-mounts" in process.stdout.readline()
        unshared(f"usercontainer image mount {name}; usercontainer image unmount {name}")
        cli("rmi", "-f", name)
        cli("image", "exists", name, status=1)
        for process in (one, other):
            assert process.communicate("go on\n", timeout=60)[0] == "200000\n"
            cli("image", "prune", "-f")
            assert (set(os.listdir(layers)) == before) == (process is one)


def test_in_the_namespace(images: ImageMaker) -> None:
    """What only looks works there, too; what needs a namespace of its own says why it does not."""
    name = images.add("removed", file("word", os.urandom(8).hex().encode()))
    cli("pull", "-q", name)
    assert unshared("usercontainer images -q").stdout == cli("images", "-q").stdout
    # Of what others have run there may be remains, and nobody there can say that they are no more.
    assert unshared(f"usercontainer rmi {name}").stdout.startswith("Untagged: ")
    cli("image", "exists", name, status=1)


def test_disk_usage() -> None:
    shown = lines("system", "df")
    assert shown[0].split() == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    images, containers, before = json.loads(out("system", "df", "--format", "json"))
    assert (images["Type"], images["Total"], images["Active"]) == ("Images", 2, 0)
    assert images["RawSize"] == images["RawReclaimable"] > 2_000_000
    name = f"df-{os.urandom(3).hex()}"
    script = "head -c 100000 /dev/zero >/tmp/f; ln /tmp/f /tmp/g; mkdir -m 700 /tmp/d; echo 12345 >/tmp/d/x; "
    cli(
        "create", "-q", "--name", name, "-v", f"{name}:/data", "--network", "none", WEB.replace("web", "busybox"),
        "sh", "-c", f"{script} echo ready >/data/word; chown 5:5 /tmp/d; sleep 1000",
    )  # fmt: skip
    cli("start", name)
    wait_until(lambda: cli("exec", name, "cat", "/data/word").stdout == "ready\n", "the files are there")
    wait_until(lambda: "5" in cli("exec", name, "stat", "-c", "%u", "/tmp/d").stdout, "and their owners")
    try:
        images, containers, volumes = json.loads(out("system", "df", "--format", "json"))
        assert images["Active"] == 1 and 0 < images["RawReclaimable"] < 20_000  # what only web has
        assert (containers["Total"], containers["Active"], containers["RawReclaimable"]) == (1, 1, 0)
        assert containers["RawSize"] == 100_006
        # Other tests have left volumes.
        assert volumes["Total"] == before["Total"] + 1
        assert (volumes["Active"], volumes["RawSize"]) == (before["Active"] + 1, before["RawSize"] + 6)
        text = out("system", "df", "-v")
        assert re.search(rf"busybox +latest +{image_id(BUSYBOX)[:12]} +\d+ months +\S+ +\S+ +\S+ +1\n", text)
        assert re.search(rf"{image_id(BUSYBOX)[:12]} +sh -c .*… +1 +100kB +.* running +{name}\n", text)
        assert re.search(rf"\n{name} +1 +6B\n", text + "\n")
    finally:
        cli("rm", "-f", name)
    totals = lines("system", "df", "--format", "{{.Type}} {{.Total}} {{.Size}} {{.Reclaimable}}")
    assert totals[1] == "Containers 0 0B 0B (0%)"
    assert totals[2].startswith(f"Local Volumes {before['Total'] + 1} ")
    run("rm", "-rf", str(Path("~/.local/share/usercontainerd/volumes").expanduser() / name))
    assert "do not go together" in cli("system", "df", "-v", "--format", "json", status=125).stderr
