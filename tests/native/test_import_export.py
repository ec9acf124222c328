"""Images of plain archives, and containers as plain archives."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.support.containers import BUSYBOX, run
from tests.support.fakeregistry import build_tar, file, member
from tests.support.interchange import Tools

ROOT = build_tar(
    member("bin", tarfile.DIRTYPE),
    member("etc", tarfile.DIRTYPE),
    file("bin/tool", b"#!", mode=0o755, uid=5, gid=6),
    file("etc/motd", b"hello"),
)


def test_import(tools: Tools) -> None:
    archive = tools.directory / "root.tar"
    archive.write_bytes(gzip.compress(ROOT))
    os.utime(archive, (1_700_000_000, 1_700_000_000))
    changes = ["-c", 'CMD ["/bin/tool"]', "--change", "ENV A=b", "-c", "LABEL x=y", "-m", "by hand"]
    printed = tools.ours("import", "-q", *changes, str(archive), "made:1").strip()
    assert printed == f"sha256:{tools.our_digests('localhost/made:1')[0]}"
    # The same file makes the same image.
    assert tools.ours("import", "-q", *changes, str(archive)).strip() == printed
    (image,) = json.loads(tools.ours("image", "inspect", "localhost/made:1"))
    assert image["Config"]["Cmd"] == ["/bin/tool"]
    assert image["Config"]["Env"] == ["A=b"]
    assert image["Created"].startswith("2023-11-14T22:13:20")
    # Podman takes it, and sees the same tree; what it imports itself is the same layer.
    saved = str(tools.directory / "saved.tar")
    tools.ours("save", "-q", "--format", "oci-archive", "-o", saved, "made:1")
    tools.run("podman", "load", "-q", "-i", saved)
    tools.run("podman", "import", "-q", str(archive), "theirs:1")
    assert tools.podman_tree("localhost/made:1") == tools.our_tree("localhost/made:1")
    layers = [
        json.loads(tools.run("podman", "image", "inspect", name))[0]["RootFS"]["Layers"]
        for name in ("localhost/made:1", "localhost/theirs:1")
    ]
    assert layers[0] == layers[1]


def test_import_from_a_pipe(tools: Tools) -> None:
    options = ["-q", "--os", "linux", "--arch", "arm64", "--variant", "v8"]
    tools.ours("import", *options, "-", "localhost/other:2", data=ROOT)
    (image,) = json.loads(tools.ours("image", "inspect", "other:2"))
    assert (image["Os"], image["Architecture"]) == ("linux", "arm64")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["http://localhost/x.tar"], "curl -fL http://localhost/x.tar | usercontainer import"),
        (["/nowhere"], "No such file"),
        (["-c", "RUN x", "-"], "RUN is not possible"),
        (["--arch", "a/b/c/d", "-"], "not a platform"),
        (["-", "Bad Name"], "invalid image reference"),
        (["-"], "the archive is empty"),
    ],
)
def test_import_refused(tools: Tools, words: list[str], message: str) -> None:
    result = subprocess.run(
        ["usercontainer", "import", "-q", *words],
        input=b"",
        capture_output=True,
        env=tools.environment,
        check=False,
        timeout=60,
    )
    assert result.returncode == 125
    assert message in result.stderr.decode()


def test_junk_is_no_image(tools: Tools) -> None:
    result = subprocess.run(
        ["usercontainer", "import", "-q", "-", "junk"],
        input=b"junk" * 1000,
        capture_output=True,
        env=tools.environment,
        check=False,
        timeout=60,
    )
    assert result.returncode == 125
    assert tools.ours("images", "-aq") == ""


def export(name: str, *words: str) -> dict[str, tarfile.TarInfo]:
    result = subprocess.run(
        ["usercontainer", "export", *words, name], capture_output=True, check=True, timeout=60
    )
    with tarfile.open(fileobj=io.BytesIO(result.stdout)) as archive:
        return {member.name.removeprefix("./").rstrip("/"): member for member in archive}


def test_export(tmp_path: Path) -> None:
    """A container that has changed its root: as it runs, when it has stopped, and what podman makes of that."""
    name = f"export-{os.urandom(2).hex()}"
    script = "rm /bin/ls; echo 1 > /made; chown 5:6 /made; mkdir /dir; echo ready > /dir/file; sleep 60"
    run("usercontainer", "create", "-q", "--name", name, "--network", "none", BUSYBOX, "sh", "-c", script)
    try:
        run("usercontainer", "start", name, timeout=60)
        for _ in range(100):
            found = export(name)
            if "dir/file" in found:
                break
        assert (found["made"].uid, found["made"].gid, found["made"].size) == (5, 6, 2)
        assert "bin/ls" not in found
        assert "bin/busybox" in found
        assert not [path for path in found if ".wh." in path]
        run("usercontainer", "stop", "-t", "0", name)
        stopped = export(name)
        assert {"made", "dir/file", "bin/busybox"} <= set(stopped)
        assert "bin/ls" not in stopped
        path = tmp_path / "root.tar"
        run("usercontainer", "export", "-o", str(path), name)
        imported = run("usercontainer", "import", "-q", str(path), "localhost/exported:1").stdout.strip()
        assert imported.startswith("sha256:")
        run("podman", "import", "-q", str(path), "localhost/exported:1")
        theirs = json.loads(run("podman", "image", "inspect", "localhost/exported:1").stdout)
        ours = json.loads(run("usercontainer", "image", "inspect", "localhost/exported:1").stdout)
        assert theirs[0]["RootFS"]["Layers"] == ours[0]["RootFS"]["Layers"]
    finally:
        run("usercontainer", "rm", "-f", name)
        run("usercontainer", "rmi", "-f", "localhost/exported:1", check=False)
        run("podman", "rmi", "-f", "localhost/exported:1", check=False)


def test_export_of_what_never_ran() -> None:
    name = f"export-{os.urandom(2).hex()}"
    run("usercontainer", "create", "-q", "--name", name, BUSYBOX)
    try:
        assert "bin/busybox" in export(name)
        assert run("usercontainer", "export", "nope", check=False).returncode == 125
    finally:
        run("usercontainer", "rm", "-f", name)
