"""Podman, buildah and skopeo beside our own command, with stores of their own, and an image that is hard to copy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from usercontainerd.base.programs import find_programs
from usercontainerd.engine.context import Context, build_context
from usercontainerd.engine.images.local import empty_trash, get_image, open_images
from usercontainerd.kernel.idmap import read_id_map
from usercontainerd.store.layout import Store

TREE = Path(__file__).parents[1] / "native" / "probes" / "tree.py"
ODD = "localhost/odd:1"
SECOND = "localhost/second:2"  # another name of it
# Run as root of the user namespace in the mounted root of a container: what layers can hold.
CHANGE = """
import os, sys
os.chdir(sys.argv[1])
def write(path, data, mode=0o644):
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, mode)
if not os.path.exists("data"):
    os.makedirs("data/sub/deep"); os.makedirs("data/opaque"); os.mkdir("data/sticky"); os.chmod("data/sticky", 0o1777)
    write("data/file", b"x" * 100000)
    os.link("data/file", "data/hard"); os.link("data/file", "data/sub/hard")
    os.symlink("../file", "data/sub/link"); os.symlink("/nowhere/at/all", "data/dangling")
    write("data/setuid", b"#!", 0o4755); write("data/owned", b"o"); os.chown("data/owned", 5, 60000)
    write("data/capable", b"c", 0o755)
    os.setxattr("data/capable", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    os.setxattr("data/capable", "user.note", b"hello")
    write("data/" + "long" * 60, b"l"); write("data/\\u00e4\\u20ac", b"u"); write("data/empty", b"")
    write("data/gone", b"g"); write("data/sub/deep/gone", b"g"); write("data/opaque/old", b"o")
    os.mkfifo("data/fifo"); os.lchown("data/dangling", 7, 8)
    for path, directories, files in os.walk("data"):
        for name in files + directories:
            os.utime(os.path.join(path, name), (1700000000, 1700000001), follow_symlinks=False)
else:
    import shutil
    os.unlink("data/gone"); shutil.rmtree("data/sub/deep"); shutil.rmtree("data/opaque"); os.mkdir("data/opaque")
    write("data/opaque/new", b"n"); write("data/file", b"changed"); os.chmod("data/setuid", 0o2755)
"""


class Tools:
    """The programs, and where their things are."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.odd_tree: dict[str, Any] = {}
        self.environment = {
            **os.environ,
            "XDG_DATA_HOME": str(directory / "data"),
            "TMPDIR": str(directory),
        }

    def run(self, *command: str, data: bytes | None = None, check: bool = True) -> str:
        """Run a program with the stores of this test; return what it printed."""
        result = subprocess.run(
            command,
            input=data if data is not None else b"",
            capture_output=True,
            env=self.environment,
            check=False,
            timeout=120,
            cwd=self.directory,
        )
        if check and result.returncode != 0:
            pytest.fail(f"{' '.join(command)}: {result.returncode}\n{result.stderr.decode()}")
        return result.stdout.decode()

    def ours(self, *words: str, data: bytes | None = None) -> str:
        return self.run("usercontainer", *words, data=data)

    def copy(self, source: str, target: str, *options: str) -> None:
        """Skopeo, which copies between everything; registries of the test are without TLS."""
        tls = ["--src-tls-verify=false", "--dest-tls-verify=false"]
        self.run("skopeo", "copy", "-q", *tls, *options, source, target)

    @property
    def context(self) -> Context:
        return build_context(self.environment, find_programs(), os.getuid(), os.getgid())

    def our_digests(self, name: str) -> tuple[str, str]:
        """ID and manifest digest of an image here."""
        record = get_image(self.context, name)
        digests = [n.digests[-1] for n in record.names if n.name == name] or [record.manifest]
        return record.id.hex, digests[0]

    def our_tree(self, name: str) -> dict[str, Any]:
        """Everything in the root of an image here, its layers mounted as a container's are."""
        record = get_image(self.context, name)
        layers = open_images(self.context).layer_directories(record)
        mounts = Path(tempfile.mkdtemp(dir=self.directory))
        # mount(8) takes no more than 256 bytes for one option: short names.
        for number, layer in enumerate(layers):
            (mounts / str(number)).symlink_to(layer)
        (mounts / "root").mkdir()
        lower = ":".join(map(str, reversed(range(len(layers)))))
        mount = f"mount -t overlay overlay -o userxattr,lowerdir={lower} {mounts}/root"
        if len(layers) == 1:
            mount = f"mount --bind {layers[0]} {mounts}/root"
        return self._in_namespace(f"cd {mounts} && {mount} && exec {sys.executable} {TREE} {mounts}/root")

    def _in_namespace(self, script: str) -> dict[str, Any]:
        context = self.context
        id_map = read_id_map(context.uid, context.gid, context.user)
        enter = (
            "import os, sys\n"
            "from usercontainerd.kernel.idmap import parse_id_map\n"
            "from usercontainerd.kernel.userns import enter_user_namespace\n"
            "enter_user_namespace(parse_id_map(sys.argv[1]))\n"
            "os.execvp('sh', ['sh', '-c', sys.argv[2]])\n"
        )
        tree: dict[str, Any] = json.loads(self.run(sys.executable, "-c", enter, id_map.render(), script))
        return tree

    def podman_tree(self, name: str) -> dict[str, Any]:
        """Everything in the root of an image of podman's."""
        script = f"exec {sys.executable} {TREE} $(podman image mount {name})"
        tree: dict[str, Any] = json.loads(self.run("podman", "unshare", "sh", "-c", script))
        self.run("podman", "image", "umount", name)
        return tree

    def podman_digests(self, name: str) -> tuple[str, str]:
        """ID and manifest digest of an image of podman's."""
        id_, digest = self.run("podman", "image", "inspect", "--format", "{{.Id}} {{.Digest}}", name).split()
        return id_, digest

    def build_odd_image(self) -> None:
        """Build ``ODD`` with buildah: three layers, and history without layers."""
        base = self.run("buildah", "from", "--tls-verify=false", "localhost:5000/busybox").strip()
        for number in (1, 2):
            (self.directory / "change.py").write_text(CHANGE)
            mount = f"{sys.executable} change.py $(buildah mount {base})"
            self.run("buildah", "unshare", "sh", "-c", mount)
            environment = ["--env", f"STEP={number}", "--label", "a=\u00e4", "--cmd", "sh -c true"]
            self.run("buildah", "config", "--user", "5:6", *environment, base)
            self.run("buildah", "commit", "-q", base, f"localhost/odd:{number - 1}")
            self.run("buildah", "rm", base)
            base = self.run("buildah", "from", f"localhost/odd:{number - 1}").strip()
        self.run("buildah", "config", "--workingdir", "/data", "--port", "80/tcp", base)
        self.run("buildah", "commit", "-q", base, ODD)
        self.run("buildah", "tag", ODD, SECOND)
        self.run("buildah", "rm", base)

    def forget_ours(self) -> None:
        """Empty our own store."""
        store = Store(self.context.paths)
        if os.path.isdir(store.root):
            for directory in (store.layers, store.images, store.names):
                os.rename(directory, f"{store.trash}/{os.path.basename(directory)}-{os.urandom(4).hex()}")
            store.prepare()
            empty_trash(self.context)

    def remove_podman(self) -> None:
        """Remove podman's store, which is mounted on itself in podman's own namespace."""
        storage = self.directory / "data" / "containers"
        if storage.exists():
            script = f"umount {storage}/*/overlay 2>/dev/null; rm -rf {storage}"
            self.run("podman", "unshare", "sh", "-c", script)

    def forget_podman(self) -> None:
        """Empty podman's store."""
        self.run("podman", "rmi", "-af")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tools]:
    """A store of podman's that has ``ODD``; nobody changes it."""
    tools = Tools(tmp_path_factory.mktemp("built"))
    tools.build_odd_image()
    tools.odd_tree = tools.podman_tree(ODD)
    yield tools
    tools.remove_podman()


@pytest.fixture
def tools(tmp_path: Path) -> Iterator[Tools]:
    """The programs with empty stores."""
    tools = Tools(tmp_path)
    yield tools
    tools.forget_ours()
    tools.remove_podman()
