"""Pulling as an unprivileged user, with a real user namespace and, in part, a real registry."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fakeregistry import OCI_INDEX, FakeRegistry, build_tar, digest_of, file
from tests.support.pulling import SMALL, pull, snapshot, wait_for_children
from usercontainerd.base.errors import (
    InvalidArgument,
    InvalidFormat,
    NoSuchImage,
    RegistryError,
    UsercontainerError,
)
from usercontainerd.definition.pull_policy import PullPolicy
from usercontainerd.engine.context import Context
from usercontainerd.engine.images.local import list_images, open_images
from usercontainerd.engine.images.removal import remove_image
from usercontainerd.engine.transfers.obtaining import pull_image
from usercontainerd.oci.platform import Platform
from usercontainerd.store.worker import Worker


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
    registry.rules["/v2/app/manifests/latest"] = lambda handler: handler.answer(400)
    assert pull_image(context, "app", policy=PullPolicy.NEWER).id == second.id
    with pytest.raises(RegistryError):
        pull_image(context, "app", policy=PullPolicy.ALWAYS)


@pytest.mark.parametrize("policy", ["MISSING", "ALWAYS"])
def test_present_image_needs_no_heavy_imports(context: Context, registry: FakeRegistry, policy: str) -> None:
    """Whether it is present is one small question to a registry without TLS."""
    registry.add_image("app", "latest", [SMALL])
    pull(context, registry)
    script = (
        "import os, sys\n"
        "from usercontainerd.base.programs import find_programs\n"
        "from usercontainerd.definition.model import PullPolicy\n"
        "from usercontainerd.engine.context import build_context\n"
        "from usercontainerd.engine.transfers.obtaining import pull_image\n"
        "context = build_context(dict(os.environ), find_programs(), os.getuid(), os.getgid())\n"
        "pull_image(context, sys.argv[1], policy=PullPolicy[sys.argv[2]])\n"
        "print(*[m for m in ('requests', 'urllib3', 'ssl', 'http.client', 'asyncio') if m in sys.modules])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, f"{registry.host}/app", policy],
        env={**dict(context.environment), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == []
    assert len(registry.seen) == (4 if policy == "ALWAYS" else 3)


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
    with pytest.raises(InvalidArgument, match="several names"):
        remove_image(context, one.short_id)
    removed = remove_image(context, "app:one")
    assert (removed.untagged, removed.deleted) == ([f"{registry.host}/app:one"], [])
    assert remove_image(context, "app:three").deleted == [three.id]
    assert open_images(context).is_whole(open_images(context).get(one.id))
    with pytest.raises(NoSuchImage):
        remove_image(context, "app:three")
    remove_image(context, one.id)
    assert snapshot(context) == []


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
