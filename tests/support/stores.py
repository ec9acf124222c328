"""Stores with small images in them, made without a registry or a user namespace."""

from __future__ import annotations

import json
import os
from pathlib import Path

from usercontainerd.base.paths import Paths
from usercontainerd.oci.digest import Digest, compute_digest
from usercontainerd.oci.manifest import OCI_CONFIGURATION, OCI_MANIFEST
from usercontainerd.store.images import ImageStore
from usercontainerd.store.layers import LayerBlob, LayerRecord
from usercontainerd.store.layout import Store
from usercontainerd.store.records import ImageRecord, NameRecord
from usercontainerd.store.stage import Stage


def build_store(directory: Path) -> Store:
    base = str(directory)
    store = Store(Paths(config=base, data=f"{base}/data", cache=base, runtime_root=f"{base}/run"))
    store.prepare()
    return store


def add_layer(images: ImageStore, word: str, *, durable: bool = True) -> Digest:
    diff_id = compute_digest(f"layer {word}".encode())
    with Stage(images.store) as stage, images.layers.lock(diff_id):
        directory = stage.make_directory(diff_id.hex)
        Path(directory, "diff", "file").write_text(word)
        blob = LayerBlob(compute_digest(f"blob {word}".encode()), 5, "application/x")
        images.layers.commit(directory, LayerRecord(diff_id, size=len(word), entries=1, blobs=[blob]))
        os.unlink(f"{stage.path}/lock")
        os.rmdir(stage.path)
    if durable:
        images.layers.make_durable([diff_id])
    return diff_id


def add_image(
    images: ImageStore, name: str, words: tuple[str, ...], *, pulled: int = 1_700_000_000
) -> ImageRecord:
    """An image of one layer for each word, as a pull leaves it."""
    layers = [add_layer(images, word) for word in words]
    configuration = json.dumps(
        {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": layers}, "x": name}
    )
    with images.lock():
        image_id = images.blobs.add(configuration.encode())
        config = {"mediaType": OCI_CONFIGURATION, "digest": image_id, "size": len(configuration)}
        manifest = images.blobs.add(
            json.dumps(
                {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": []}
            ).encode()
        )
        record = ImageRecord(
            image_id,
            manifest=manifest,
            layers=layers,
            size=sum(map(len, words)),
            created="",
            platform="linux/amd64",
            pulled=pulled,
        )
        images.add(record)
        images.add_name(NameRecord(name, image_id, [manifest]))
    record.names = tuple(images.all_names())
    return record
