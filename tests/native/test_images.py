"""Pulling and removing as an unprivileged user, with a real user namespace and, in part, a real registry."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.fakeregistry import OCI_INDEX, FakeRegistry, Handler, build_tar, digest_of, file, member
from usercontainerd.base.errors import (
    DigestMismatch,
    InUse,
    InvalidFormat,
    NoSuchImage,
    RegistryError,
    SubIdsMissing,
    UsercontainerError,
)
from usercontainerd.base.paths import Paths
from usercontainerd.base.programs import find_programs
from usercontainerd.definition.model import PullPolicy
from usercontainerd.engine import images as use_cases
from usercontainerd.engine.context import Context, build_context
from usercontainerd.engine.images import empty_trash, list_images, open_images, pull_image, remove_image
from usercontainerd.kernel.idmap import plan_single_map
from usercontainerd.oci.platform import Platform
from usercontainerd.store.layout import Store
from usercontainerd.store.worker import Worker

DIR, SYM, LNK = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
SMALL = build_tar(member("bin", DIR), file("bin/sh", b"#!", mode=0o755))


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as fake:
        yield fake


@pytest.fixture
def context(registry: FakeRegistry, tmp_path: Path) -> Iterator[Context]:
    """Alice with a store of her own in a temporary directory; the fake registry may be asked without TLS."""
    config = tmp_path / "config"
    (config / "containers").mkdir(parents=True)
    (config / "containers" / "registries.conf").write_text(
        f'unqualified-search-registries = ["{registry.host}"]\n'
        f'[[registry]]\nlocation = "{registry.host}"\ninsecure = true\n'
        '[[registry]]\nlocation = "localhost:5000"\ninsecure = true\n'
    )
    environment = {
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(config),
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
    }
    yield build_context(environment, find_programs(), os.getuid(), os.getgid())
    made = Store(Paths.from_environment(environment, os.getuid()))
    if os.path.isdir(made.root):
        # What belongs to subordinate IDs pytest could not delete.
        os.rename(made.layers, f"{made.trash}/layers")
        empty_trash(build_context(environment, find_programs(), os.getuid(), os.getgid()))
        assert os.listdir(made.trash) == []


def store_of(context: Context) -> Store:
    return Store(context.paths)


def snapshot(context: Context) -> list[str]:
    """Every file of the store but for locks."""
    root = context.paths.data
    return sorted(
        os.path.join(directory, name)
        for directory, _, names in os.walk(root)
        for name in names
        if not directory.endswith("/locks")
    )


def wait_for_children() -> None:
    """No worker may be left, and no zombie."""
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, 0)


def pull(context: Context, registry: FakeRegistry, name: str = "app:latest") -> Path:
    """Pull an image of one layer; return the directory of that layer."""
    record = pull_image(context, f"{registry.host}/{name}")
    return Path(open_images(context).layer_directories(record)[-1])


def in_namespace(context: Context, *command: str) -> str:
    """Run a command as root of the user namespace."""
    from usercontainerd.kernel.idmap import read_id_map

    id_map = read_id_map(context.uid, context.gid, context.user)
    script = (
        "import os, sys\n"
        "from usercontainerd.kernel.idmap import parse_id_map\n"
        "from usercontainerd.kernel.userns import enter_user_namespace\n"
        "enter_user_namespace(parse_id_map(sys.argv[1]))\n"
        "os.execvp(sys.argv[2], sys.argv[2:])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, id_map.render(), *command], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_real_registry(context: Context) -> None:
    seen: list[str] = []
    record = pull_image(context, "localhost:5000/busybox", progress=lambda phase, *_: seen.append(phase))
    assert [name.name for name in record.names] == ["localhost:5000/busybox:latest"]
    images = open_images(context)
    assert images.configuration(record).command == ("sh",)
    (directory,) = images.layer_directories(record)
    assert os.access(f"{directory}/bin/busybox", os.X_OK)
    assert list(dict.fromkeys(seen)) == ["resolve", "download", "unpack", "store", "done"]
    # Manifest and configuration are kept byte for byte.
    assert digest_of(images.blobs.read(record.manifest)) == record.manifest
    # A second pull finds all of it; Docker's form of the same image shares the layer.
    assert pull_image(context, "localhost:5000/busybox").id == record.id
    docker = pull_image(context, "localhost:5000/busybox:docker")
    assert docker.layers == record.layers
    multi = pull_image(context, "localhost:5000/multi")
    assert multi.platform == f"linux/{Platform('linux', 'amd64').architecture}"
    wait_for_children()


def test_everything_that_a_layer_can_hold(context: Context, registry: FakeRegistry) -> None:
    capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0".decode("latin-1")
    layer = build_tar(
        member(".", DIR, mode=0o755, mtime=1_000_000_000),
        member("etc", DIR, mtime=1_100_000_000, uid=3, gid=4),
        file("etc/shadow", b"secret", mode=0o640, gid=42, mtime=1_200_000_000),
        file("bin/su", b"x", mode=0o4755),
        file("bin/ping", b"x", uid=5, pax_headers={"SCHILY.xattr.security.capability": capability}),
        member("bin/hard", LNK, linkname="bin/su"),
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


def test_tampered_blob(context: Context, registry: FakeRegistry) -> None:
    good, bad = build_tar(file("good", b"1")), build_tar(file("bad", os.urandom(2_000_000)))
    manifest = registry.add_image("app", "latest", [good, bad])
    digest = manifest["layers"][1]["digest"]
    changed = bytearray(registry.blobs[digest])
    changed[len(changed) // 2] ^= 1
    registry.blobs[digest] = bytes(changed)
    pull_image_before = snapshot(context)
    with pytest.raises(DigestMismatch) as caught:
        pull(context, registry)
    assert digest in str(caught.value)
    assert digest_of(bytes(changed)) in str(caught.value)
    assert snapshot(context) == pull_image_before
    assert os.listdir(store_of(context).layers) == []
    assert list_images(context) == []
    # Mended, it can be pulled.
    changed[len(changed) // 2] ^= 1
    registry.blobs[digest] = bytes(changed)
    pull(context, registry)
    wait_for_children()


REGISTRY_CONFIGURATION = """\
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {directory}}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@pytest.mark.skipif(not os.access("/usr/bin/docker-registry", os.X_OK), reason="no docker-registry here")
def test_tampered_blob_in_a_real_registry(context: Context, tmp_path: Path) -> None:
    """One byte flipped in the registry's own storage."""
    try:
        shutil.copytree("/var/lib/registry/docker", tmp_path / "registry" / "docker")
    except OSError:
        pytest.skip("the machine's registry cannot be copied")
    blobs = (tmp_path / "registry" / "docker" / "registry" / "v2" / "blobs").glob("sha256/*/*/data")
    largest = max(blobs, key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 0x10
    largest.chmod(0o600)
    largest.write_bytes(data)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    configuration = tmp_path / "registry.yml"
    configuration.write_text(REGISTRY_CONFIGURATION.format(directory=tmp_path / "registry", port=port))
    Path(context.paths.config, "..", "containers", "registries.conf").resolve().write_text(
        f'[[registry]]\nlocation = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    process = subprocess.Popen(["docker-registry", "serve", str(configuration)], stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 10
        while time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.02)
        before = snapshot(context)
        with pytest.raises(DigestMismatch) as caught:
            pull_image(context, f"127.0.0.1:{port}/busybox")
        assert f"expected sha256:{largest.parent.name}" in str(caught.value)
        assert f"got {digest_of(bytes(data))}" in str(caught.value)
        assert snapshot(context) == before
    finally:
        process.terminate()
        process.wait()


def test_wrong_diff_id(context: Context, registry: FakeRegistry) -> None:
    lie = "sha256:" + "12" * 32
    registry.add_image("app", "latest", [SMALL], {"rootfs": {"type": "layers", "diff_ids": [lie]}})
    with pytest.raises(DigestMismatch, match=lie) as caught:
        pull(context, registry)
    assert digest_of(SMALL) in str(caught.value)
    assert snapshot(context) == []


def truncate(handler: Handler, data: bytes) -> None:
    handler.answer(200, data[: len(data) // 2], {"Content-Length": ""})


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        (lambda handler, data: handler.answer(500), RegistryError),
        (lambda handler, data: handler.answer(404), RegistryError),
        (lambda handler, data: handler.answer(200, data + b"x"), RegistryError),
        (truncate, DigestMismatch),
        (lambda handler, data: handler.answer(200, b"\0" * len(data)), DigestMismatch),
        (
            lambda handler, data: handler.answer(200, gzip.compress(b"")[:10].ljust(len(data), b"\xff")),
            DigestMismatch,
        ),
    ],
)
def test_hostile_blobs(
    context: Context,
    registry: FakeRegistry,
    rule: Callable[[Handler, bytes], None],
    error: type[UsercontainerError],
) -> None:
    manifest = registry.add_image("app", "latest", [build_tar(file("x", os.urandom(1_000_000)))])
    digest = manifest["layers"][0]["digest"]
    data = registry.blobs[digest]
    registry.rules[f"/v2/app/blobs/{digest}"] = lambda handler: rule(handler, data)
    with pytest.raises(error):
        pull(context, registry)
    assert snapshot(context) == []
    wait_for_children()


def test_bomb(context: Context, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    from usercontainerd.engine import pulling
    from usercontainerd.store.worker import UnpackLimits

    monkeypatch.setattr(pulling, "UnpackLimits", lambda: UnpackLimits(size=10_000_000))
    registry.add_image("app", "latest", [build_tar(file("zeros", bytes(20_000_000)))])
    with pytest.raises(InvalidFormat, match="more than the 10000000 bytes"):
        pull(context, registry)
    assert snapshot(context) == []


def test_owner_beyond_the_mapping(context: Context, registry: FakeRegistry) -> None:
    registry.add_image("app", "latest", [build_tar(file("x", uid=70_000))])
    with pytest.raises(SubIdsMissing, match=r"user ID 70000, but only the IDs 0, 1 to 65536.*/etc/subuid"):
        pull(context, registry)
    assert snapshot(context) == []


def test_without_subordinate_ids(
    context: Context, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(use_cases, "read_id_map", lambda uid, gid, _user: plan_single_map(uid, gid))
    registry.add_image("app", "latest", [SMALL])
    assert (pull(context, registry) / "bin" / "sh").exists()
    registry.add_image("app", "other", [build_tar(file("x", gid=42))])
    with pytest.raises(SubIdsMissing, match=r"group ID 42, but only the ID 0 is mapped"):
        pull(context, registry, "app:other")


def test_policies(context: Context, registry: FakeRegistry) -> None:
    registry.add_image("app", "latest", [SMALL])
    with pytest.raises(NoSuchImage, match="must not be pulled"):
        pull_image(context, "app", policy=PullPolicy.NEVER)
    first = pull_image(context, "app", policy=PullPolicy.MISSING)
    assert first.names[0].name == f"{registry.host}/app:latest"
    asked = len(registry.seen)
    registry.add_image("app", "latest", [SMALL, build_tar(file("more"))])
    for policy in (PullPolicy.MISSING, PullPolicy.NEVER):
        assert pull_image(context, "app", policy=policy).id == first.id
    assert pull_image(context, first.short_id, policy=PullPolicy.MISSING).id == first.id
    assert len(registry.seen) == asked
    second = pull_image(context, "app", policy=PullPolicy.NEWER)
    assert second.id != first.id
    # Only the new layer was fetched; the old image has lost its name.
    assert sum("/blobs/" in path for path in registry.paths()[asked:]) == 2
    assert [len(image.names) for image in list_images(context)] in ([1, 0], [0, 1])
    registry.rules["/v2/app/manifests/latest"] = lambda handler: handler.answer(500)
    assert pull_image(context, "app", policy=PullPolicy.NEWER).id == second.id
    with pytest.raises(RegistryError):
        pull_image(context, "app", policy=PullPolicy.ALWAYS)


def test_present_image_needs_no_heavy_imports(context: Context, registry: FakeRegistry) -> None:
    registry.add_image("app", "latest", [SMALL])
    pull(context, registry)
    script = (
        "import os, sys\n"
        "from usercontainerd.base.programs import find_programs\n"
        "from usercontainerd.definition.model import PullPolicy\n"
        "from usercontainerd.engine.context import build_context\n"
        "from usercontainerd.engine.images import pull_image\n"
        "context = build_context(dict(os.environ), find_programs(), os.getuid(), os.getgid())\n"
        "pull_image(context, sys.argv[1], policy=PullPolicy.MISSING)\n"
        "print(*[m for m in ('requests', 'urllib3', 'ssl', 'http.client', 'asyncio') if m in sys.modules])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, f"{registry.host}/app"],
        env={**dict(context.environment), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == []


def test_index_and_platforms(context: Context, registry: FakeRegistry) -> None:
    entries = []
    for architecture, tag in (("amd64", "a"), ("arm64", "b")):
        registry.add_image("app", tag, [build_tar(file(architecture))], {"architecture": architecture})
        data, media_type = registry.manifests["app", tag]
        entries.append(
            {
                "mediaType": media_type,
                "digest": digest_of(data),
                "size": len(data),
                "platform": {"os": "linux", "architecture": architecture},
            }
        )
    attestation = {**entries[0], "platform": {"os": "unknown", "architecture": "unknown"}}
    attestation["annotations"] = {"vnd.docker.reference.type": "attestation-manifest"}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [attestation, *entries]}
    digest = registry.add_manifest("app", "multi", index, OCI_INDEX)
    arm = pull_image(context, f"{registry.host}/app:multi", platform=Platform("linux", "arm64"))
    assert arm.platform == "linux/arm64"
    amd = pull_image(context, f"{registry.host}/app:multi", platform=Platform("linux", "amd64"))
    assert amd.platform == "linux/amd64"
    assert amd.names[0].digests[0] == digest
    with pytest.raises(NoSuchImage, match=r"no image for linux/s390x.*there are linux/amd64, linux/arm64"):
        pull_image(context, f"{registry.host}/app:multi", platform=Platform("linux", "s390x"))
    pinned = pull_image(context, f"{registry.host}/app@{digest}", platform=Platform("linux", "amd64"))
    assert pinned.id == amd.id
    assert f"{registry.host}/app@{digest}" in [name.name for name in pinned.names]
    entries[0]["size"] = 5
    registry.add_manifest("app", "liar", index, OCI_INDEX)
    with pytest.raises(InvalidFormat, match="its index says 5"):
        pull_image(context, f"{registry.host}/app:liar", platform=Platform("linux", "amd64"))


def test_a_single_image_of_another_platform(context: Context, registry: FakeRegistry) -> None:
    registry.add_image("app", "latest", [SMALL], {"architecture": "riscv64"})
    with pytest.raises(NoSuchImage, match=r"is for linux/riscv64, not for linux/arm64"):
        pull_image(context, "app", platform=Platform("linux", "arm64"))
    assert pull_image(context, "app").platform == "linux/riscv64"
    assert pull_image(context, "app", platform=Platform("linux", "riscv64"), policy=PullPolicy.NEVER)
    with pytest.raises(NoSuchImage):
        pull_image(context, "app", platform=Platform("linux", "arm64"), policy=PullPolicy.NEVER)


def test_search_goes_on_to_the_next_registry(context: Context, registry: FakeRegistry) -> None:
    registry.add_image("app", "latest", [SMALL])
    configuration = Path(context.paths.config, "..", "containers", "registries.conf").resolve()
    text = configuration.read_text()
    configuration.write_text(
        text.replace(f'= ["{registry.host}"]', f'= ["127.0.0.1:1", "localhost:5000", "{registry.host}"]')
    )
    assert pull_image(context, "app").names[0].name == f"{registry.host}/app:latest"
    with pytest.raises(RegistryError, match=r"no registry has it: .*refused.*localhost:5000"):
        pull_image(context, "missing")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rootfs": {"type": "layers", "diff_ids": []}}, "1 layers, the configuration 0"),
        ({"rootfs": {"type": "layers", "diff_ids": ["sha256:../../../x"]}}, "not a digest"),
        ({"rootfs": 5}, "expected an object"),
    ],
)
def test_bad_configurations(
    context: Context, registry: FakeRegistry, config: dict[str, object], message: str
) -> None:
    registry.add_image("app", "latest", [SMALL], config)
    with pytest.raises(InvalidFormat, match=message):
        pull(context, registry)
    assert snapshot(context) == []


def test_the_same_layer_twice(context: Context, registry: FakeRegistry) -> None:
    other = build_tar(file("bin/sh", b"other"))
    registry.add_image("app", "latest", [SMALL, other, SMALL])
    record = pull_image(context, f"{registry.host}/app")
    assert len(record.layers) == 3
    directories = open_images(context).layer_directories(record)
    assert len(directories) == 2
    assert Path(directories[-1], "bin", "sh").read_bytes() == b"#!"


def test_removal(context: Context, registry: FakeRegistry) -> None:
    registry.add_image("app", "one", [SMALL])
    registry.add_image("app", "two", [SMALL])
    registry.add_image("app", "three", [SMALL, build_tar(file("x", uid=5))])
    one = pull_image(context, "app:one")
    pull_image(context, "app:two")
    three = pull_image(context, "app:three")
    with pytest.raises(InUse, match="several names"):
        remove_image(context, one.short_id)
    assert remove_image(context, "app:one") == ([f"{registry.host}/app:one"], None)
    with pytest.raises(InUse, match="used by web"):
        remove_image(context, "app:three", users=["web"])
    _, gone = remove_image(context, "app:three")
    assert gone is not None
    assert gone.id == three.id
    assert open_images(context).is_whole(open_images(context).get(one.id))
    with pytest.raises(NoSuchImage):
        remove_image(context, "app:three")
    remove_image(context, one.id)
    assert snapshot(context) == []


DRIVER = (
    "import os, sys, signal\n"
    "from usercontainerd.base.programs import find_programs\n"
    "from usercontainerd.engine.context import build_context\n"
    "from usercontainerd.engine.images import pull_image\n"
    "signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))\n"
    "context = build_context(dict(os.environ), find_programs(), os.getuid(), os.getgid())\n"
    "def progress(phase, item, done, total):\n"
    "    print(phase, item, done, total, flush=True)\n"
    "pull_image(context, sys.argv[1], progress=progress)\n"
)


def start_pull(context: Context, name: str, *, start_new_session: bool = False) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, name],
        env={**dict(context.environment), "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=start_new_session,
    )


@pytest.mark.parametrize("signals", [(signal.SIGINT,), (signal.SIGTERM,), (signal.SIGKILL,)])
def test_interrupted(context: Context, registry: FakeRegistry, signals: tuple[int, ...]) -> None:
    """Ends at once; what was half-made goes away although the puller may be dead."""
    first, second = build_tar(file("one", uid=3)), build_tar(file("two", os.urandom(3_000_000), uid=4))
    manifest = registry.add_image("app", "latest", [first, second])
    digest = manifest["layers"][1]["digest"]
    data = registry.blobs[digest]
    gate = threading.Event()

    def stall(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:2_000_000])
        handler.wfile.flush()
        gate.wait(20)
        handler.wfile.write(data[2_000_000:])

    registry.rules[f"/v2/app/blobs/{digest}"] = stall
    process = start_pull(context, f"{registry.host}/app")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("download") and line.split()[2] != "0" and digest in line:
            break
    store = store_of(context)
    assert len(os.listdir(store.staging)) == 1
    time.sleep(0.3)  # the first layer gets unpacked meanwhile
    start = time.monotonic()
    for number in signals:
        process.send_signal(number)
    assert process.wait(10) != 0
    assert time.monotonic() - start < 2
    process.communicate()
    try:
        end = time.monotonic() + 10
        while (os.listdir(store.staging) or os.listdir(store.trash)) and time.monotonic() < end:
            time.sleep(0.02)
        assert os.listdir(store.staging) == []
        assert os.listdir(store.trash) == []
        assert list_images(context) == []
    finally:
        gate.set()
    # The next pull goes on: the layer that was complete is not fetched again.
    registry.rules.clear()
    asked = len(registry.seen)
    pull(context, registry)
    again = [path for path in registry.paths()[asked:] if "/blobs/" in path]
    assert not any(manifest["layers"][0]["digest"] in path for path in again) or signals == (signal.SIGKILL,)


def test_killed_at_random_moments(context: Context, registry: FakeRegistry) -> None:
    """Puller and worker alike: what is there afterwards is whole, and the next pull sweeps the rest."""
    layers = [build_tar(*[file(f"{n}/{m}", os.urandom(2000), uid=n) for m in range(400)]) for n in range(4)]
    registry.add_image("app", "latest", layers)
    for _ in range(12):
        process = start_pull(context, f"{registry.host}/app", start_new_session=True)
        time.sleep(random.uniform(0.1, 0.9))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        for record in list_images(context):
            assert open_images(context).is_whole(record)
        for diff_id in open_images(context).layers.all():
            record_of_layer = open_images(context).layers.read(diff_id)
            assert record_of_layer is not None
            assert record_of_layer.entries == 400
        remove_or_not = random.random() < 0.3
        if remove_or_not and list_images(context):
            remove_image(context, "app")
    record = pull_image(context, f"{registry.host}/app")
    assert open_images(context).is_whole(record)
    assert os.listdir(store_of(context).staging) == []
    assert os.listdir(store_of(context).trash) == []


def test_two_processes_share_the_work(context: Context, registry: FakeRegistry) -> None:
    layers = [build_tar(file(f"f{n}", os.urandom(500_000), uid=n)) for n in range(4)]
    manifest = registry.add_image("app", "latest", layers)
    reversed_layers = [*reversed(layers), build_tar(file("extra"))]
    registry.add_image("app", "reversed", reversed_layers)
    names = ["app", "app", "app:reversed", "app:reversed"]
    processes = [start_pull(context, f"{registry.host}/{name}") for name in names]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    for layer in manifest["layers"]:
        assert sum(layer["digest"] in path for path in registry.paths()) == 1
    assert len(list_images(context)) == 2
    for record in list_images(context):
        assert open_images(context).is_whole(record)
    assert os.listdir(store_of(context).staging) == []


def test_pull_and_removal_at_once(context: Context, registry: FakeRegistry) -> None:
    """Removing one image over and over never breaks another that is being pulled."""
    shared = build_tar(file("shared", b"1", uid=9))
    for number in range(6):
        registry.add_image(
            "app", str(number), [shared, build_tar(file(f"own{number}", os.urandom(1000), uid=8))]
        )
    processes = [start_pull(context, f"{registry.host}/app:{number}") for number in range(6)]
    removed = 0
    while any(process.poll() is None for process in processes):
        for image in list_images(context):
            if image.names and image.names[0].name.endswith((":0", ":1")):
                try:
                    remove_image(context, image.names[0].name)
                    removed += 1
                except NoSuchImage:
                    pass
    for process in processes:
        assert process.wait() == 0, process.communicate()[1]
    for record in list_images(context):
        assert open_images(context).is_whole(record)
    kept = {name.name.rpartition(":")[2] for record in list_images(context) for name in record.names}
    assert kept >= {"2", "3", "4", "5"}


def test_worker_says_why_it_cannot_start(context: Context) -> None:
    from usercontainerd.kernel.idmap import Extent, IdMap

    foreign = IdMap(
        [Extent(0, os.getuid(), 1), Extent(1, 5, 10)], [Extent(0, os.getgid(), 1), Extent(1, 5, 10)]
    )
    with (
        Worker(
            context.programs.unpack_layer, foreign, user=context.user, uid=context.uid, gid=context.gid
        ) as worker,
        pytest.raises(UsercontainerError, match="ID map"),
    ):
        worker.wait_ready()
    with pytest.raises(UsercontainerError, match="/nonexistent"):
        Worker("/nonexistent", foreign, user="x", uid=0, gid=0)


def test_garbage_manifests(context: Context, registry: FakeRegistry) -> None:
    for data in (
        b"",
        b"{",
        b"[]",
        b"null",
        b"<html>",
        b"{" * 5000,
        json.dumps({"schemaVersion": 2}).encode(),
    ):
        registry.add_manifest("app", "latest", data)
        with pytest.raises(InvalidFormat):
            pull(context, registry)
    assert snapshot(context) == []
