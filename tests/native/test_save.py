"""Saving what came from a registry: with blobs that were kept, without, and from a store that is not whole."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.archives import SMALL_LAYER
from tests.support.fakeregistry import FakeRegistry, build_tar, digest_of, file
from usercontainerd.base.errors import NoSuchImage, StoreError
from usercontainerd.engine.archives.loading import load_images
from usercontainerd.engine.archives.saving import SaveFormat, save_images
from usercontainerd.engine.context import Context
from usercontainerd.engine.images.local import open_images
from usercontainerd.engine.transfers.obtaining import pull_image
from usercontainerd.oci.digest import Digest
from usercontainerd.store.layout import Store

OTHER_LAYER = build_tar(file("other", os.urandom(400_000)))


def keep_blobs(context: Context) -> None:
    Path(context.paths.config).mkdir(parents=True, exist_ok=True)
    Path(context.paths.config, "usercontainerd.toml").write_text("[store]\nkeep_blobs = true\n")


def save(context: Context, path: Path, *words: str, **options: Any) -> dict[str, bytes]:
    """Save to an archive; return its files."""
    save_images(context, words, path=str(path), **options)
    assert [name for name in os.listdir(path.parent) if path.name in name] == [path.name]
    with tarfile.open(path) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}  # type: ignore[union-attr]


@pytest.mark.parametrize("level", [1, 9])
def test_kept_blobs_keep_the_digest(
    context: Context, registry: FakeRegistry, tmp_path: Path, level: int
) -> None:
    """Compressed in ways that are not ours: what comes out is what the registry has."""
    keep_blobs(context)
    compress: Callable[[bytes], bytes] = lambda data: gzip.compress(data, level, mtime=level)  # noqa: E731
    registry.add_image("app", "latest", [SMALL_LAYER, OTHER_LAYER], compress=compress)
    name = f"{registry.host}/app:latest"
    record = pull_image(context, name)
    files = save(context, tmp_path / "x.tar", name, kind=SaveFormat.OCI_ARCHIVE)
    (entry,) = json.loads(files["index.json"])["manifests"]
    assert entry["digest"] == record.manifest == digest_of(registry.manifests["app", "latest"][0])
    blobs = {digest_of(data): data for key, data in files.items() if key.startswith("blobs/")}
    assert blobs == {**registry.blobs, record.manifest: registry.manifests["app", "latest"][0]}
    # And back, into an empty store.
    os.rename(Store(context.paths).images, f"{Store(context.paths).trash}/images")
    os.rename(Store(context.paths).names, f"{Store(context.paths).trash}/names")
    (loaded,) = load_images(context, str(tmp_path / "x.tar"))
    assert loaded.record.manifest == record.manifest


def test_a_changed_blob_is_not_saved(context: Context, registry: FakeRegistry, tmp_path: Path) -> None:
    keep_blobs(context)
    manifest = registry.add_image("app", "latest", [SMALL_LAYER])
    record = pull_image(context, f"{registry.host}/app")
    blob = Path(Store(context.paths).blob(Digest(manifest["layers"][0]["digest"])))
    blob.chmod(0o600)
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    for kind in (SaveFormat.OCI_ARCHIVE, SaveFormat.OCI_DIR):
        with pytest.raises(StoreError, match="changed on disk"):
            save_images(context, [record.id], path=str(tmp_path / "x.tar"), kind=kind)
    assert not [name for name in os.listdir(tmp_path) if "x.tar" in name]


def test_a_changed_layer_is_not_saved(context: Context, registry: FakeRegistry, tmp_path: Path) -> None:
    registry.add_image("app", "latest", [SMALL_LAYER])
    record = pull_image(context, f"{registry.host}/app")
    (directory,) = open_images(context).layer_directories(record)
    Path(directory, "bin", "sh").write_bytes(b"?!")
    with pytest.raises(StoreError, match="changed on disk"):
        save_images(context, [record.id], path=str(tmp_path / "x.tar"))
    assert not [name for name in os.listdir(tmp_path) if "x.tar" in name]


def test_without_recipe(context: Context, registry: FakeRegistry, tmp_path: Path) -> None:
    """A layer that cannot be made again from its files comes from its blob; without that nothing can be done."""
    keep_blobs(context)
    manifest = registry.add_image("app", "latest", [SMALL_LAYER])
    record = pull_image(context, f"{registry.host}/app")
    (directory,) = open_images(context).layer_directories(record)
    Path(directory, "..", "recipe").unlink()
    files = save(context, tmp_path / "x.tar", record.id)
    assert files[f"{digest_of(SMALL_LAYER)[7:]}.tar"] == SMALL_LAYER
    os.unlink(Store(context.paths).blob(Digest(manifest["layers"][0]["digest"])))
    with pytest.raises(StoreError, match=r"layer .*pull it again"):
        save_images(context, [record.id], path=str(tmp_path / "x.tar"))
    assert tarfile.is_tarfile(io.BytesIO((tmp_path / "x.tar").read_bytes()))


def test_names(context: Context, registry: FakeRegistry, tmp_path: Path) -> None:
    registry.add_image("app", "latest", [SMALL_LAYER])
    registry.add_image("other", "1", [SMALL_LAYER])
    registry.add_image("third", "1", [SMALL_LAYER, OTHER_LAYER, SMALL_LAYER])
    for name in ("app:latest", "other:1", "third:1"):
        pull_image(context, f"{registry.host}/{name}")
    record = pull_image(context, f"{registry.host}/app")
    words = ["app", record.short_id, f"{registry.host}/other:1", f"{registry.host}/third:1"]
    files = save(context, tmp_path / "x.tar", *words)
    first, second = json.loads(files["manifest.json"])
    assert first["RepoTags"] == [f"{registry.host}/app:latest", f"{registry.host}/other:1"]
    assert second["RepoTags"] == [f"{registry.host}/third:1"]
    assert second["Layers"][0] == second["Layers"][2] == first["Layers"][0]
    assert len([name for name in files if name.endswith(".tar")]) == 2
    files = save(context, tmp_path / "x.tar", *words, kind=SaveFormat.OCI_ARCHIVE)
    assert len(json.loads(files["index.json"])["manifests"]) == 3
    with pytest.raises(NoSuchImage):
        save(context, tmp_path / "y.tar", "nope")
