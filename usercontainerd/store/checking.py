"""Whether the records, layers and blobs of a store fit together, and what to do where they do not.

Looked at under the lock of the records, so that nothing changes meanwhile; a layer that another process is making
just now is passed over. Mending never takes anything from an image that is complete: what is removed is what
nothing can use any more. An image that has lost a part is forgotten, and the parts that are left stay for a while,
so that pulling it again fetches only what is missing.
"""

from __future__ import annotations

import os
from functools import partial

from usercontainerd.base.errors import Busy, InUse, InvalidFormat, StoreError, UsercontainerError
from usercontainerd.oci.digest import Digest, is_digest
from usercontainerd.oci.image import ImageConfiguration, parse_image_configuration
from usercontainerd.oci.manifest import Manifest, parse_manifest
from usercontainerd.store.blobs import MAX_BLOB
from usercontainerd.store.examination import examine_blob, explain_layer, read_file
from usercontainerd.store.findings import Finding, Severity
from usercontainerd.store.images import ImageStore
from usercontainerd.store.indexes import IndexStore
from usercontainerd.store.layers import LayerRecord
from usercontainerd.store.records import (
    ImageRecord,
    NameRecord,
    name_file,
    parse_image_record,
    parse_name_record,
)
from usercontainerd.store.usage import find_layers_in_use, list_mounted_layers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


class StoreCheck:
    """One look at a store. The caller holds the lock of the records, unless nobody can write there.

    ``changed`` are layers whose files are known to be wrong, with the reason, ``bad_blobs`` large blobs: these are not
    read here, where others wait. What nothing needs is left alone for ``max_age`` seconds before ``now`` (seconds since
    the epoch).
    """

    def __init__(
        self,
        images: ImageStore,
        *,
        now: float,
        max_age: float,
        changed: Mapping[Digest, str] | None = None,
        bad_blobs: Mapping[Digest, str] | None = None,
    ) -> None:
        self._images = images
        self._store = images.store
        self._changed = changed or {}
        self._now = now
        self._max_age = max_age
        self._layers: dict[Digest, LayerRecord] = {}
        self._bad_layers: dict[Digest, str] = {}
        self._blobs: set[Digest] = set()
        self._bad_blobs: dict[Digest, str] = dict(bad_blobs or {})
        self._whole: dict[Digest, ImageRecord] = {}
        self._lost: dict[Digest, str] = {}
        self._pending: set[Digest] = set()  # images of which another process makes a layer just now
        self._wanted: set[Digest] = set()  # layers of images that are whole, or can become so again
        self._findings: list[Finding] = []

    def run(self) -> list[Finding]:
        """Return what is not as it should be; mend it in this order."""
        self._look_at_layers()
        self._look_at_blobs()
        names, bad_names = self._read_names()
        for file in _list(self._store.images):
            if file.endswith(".json") and (image_id := _read_hex(file.removesuffix(".json"))) is not None:
                self._check_image(image_id, names)
        indexes = self._check_indexes(names)
        self._check_names([name for name in names if name.image not in indexes], bad_names)
        self._check_layers()
        self._check_blobs(names)
        return self._findings

    def _add(
        self,
        kind: str,
        severity: str,
        what: str,
        where: str,
        *,
        repair: str = "",
        mend: Callable[[], object] | None = None,
    ) -> None:
        self._findings.append(Finding(kind, severity, what, where, repair=repair, mend=mend))

    # What is there

    def _look_at_layers(self) -> None:
        for diff_id in sorted(self._images.layers.all()):
            record = self._images.layers.read(diff_id)
            reason = self._changed.get(diff_id, "")
            if record is None:
                reason = explain_layer(self._store, diff_id)
            elif not _is_directory(self._images.layers.directory(diff_id)):
                reason = "its files are gone"
            if reason and not self._is_held(diff_id):
                self._bad_layers[diff_id] = reason
            elif record is not None:
                self._layers[diff_id] = record

    def _is_held(self, diff_id: Digest) -> bool:
        """Tell whether another process is making the layer anew."""
        try:
            with self._images.layers.lock(diff_id, wait=False):
                return False
        except Busy:
            return True
        except StoreError:
            return False  # the store is read-only: nobody makes anything

    def _look_at_blobs(self) -> None:
        for digest in self._images.blobs.all():
            self._blobs.add(digest)
            reason = examine_blob(self._store.blob(digest), digest, deep=False)
            if reason:
                self._bad_blobs[digest] = reason

    def _is_usable(self, digest: Digest) -> bool:
        return digest in self._blobs and digest not in self._bad_blobs

    def _read_names(self) -> tuple[list[NameRecord], list[str]]:
        good, bad = [], list(self._images.unreadable())
        for file in _list(self._store.names):
            path = f"{self._store.names}/{file}"
            if file.endswith(".json") and file[0] != "." and path not in bad:
                try:
                    good.append(parse_name_record(read_file(path), path))
                except (OSError, InvalidFormat):
                    bad.append(path)
        return good, [path for path in bad if os.path.dirname(path) == self._store.names]

    # Images

    def _check_image(self, image_id: Digest, names: list[NameRecord]) -> None:
        path = f"{self._store.images}/{image_id.hex}.json"
        own = [name for name in names if name.image == image_id]
        try:
            record: ImageRecord | None = parse_image_record(read_file(path), path)
        except (OSError, InvalidFormat):
            record = None
        if record is not None and record.id.hex == image_id.hex:
            image_id = record.id
        else:
            record = None
        configuration, reason = self._read_configuration(image_id)
        missing = [d for d in (record.layers if record else ()) if d not in self._layers]
        if configuration is not None:
            missing = [d for d in configuration.diff_ids if d not in self._layers]
            if missing and any(self._is_held(d) for d in missing):
                # Somebody pulls it just now.
                self._pending.add(image_id)
                self._wanted.update(configuration.diff_ids)
                return
            if record is not None and record.layers != configuration.diff_ids:
                record = None
        if missing:
            bad = self._bad_layers.get(missing[0])
            reason = f"its layer {missing[0].hex[:12]} is " + (f"damaged: {bad}" if bad else "missing")
        if not reason and record is None and configuration is not None:
            reason = self._plan_new_record(image_id, configuration, own, path)
        elif not reason and record is not None:
            self._accept(record)
        if reason:
            self._lose_image(image_id, reason, own, configuration, path)

    def _accept(self, record: ImageRecord) -> None:
        self._whole[record.id] = record
        self._wanted.update(record.layers)

    def _read_configuration(self, image_id: Digest) -> tuple[ImageConfiguration | None, str]:
        if image_id not in self._blobs:
            return None, "its configuration is missing"
        if image_id in self._bad_blobs:
            return None, f"its configuration is damaged: {self._bad_blobs[image_id]}"
        path = self._store.blob(image_id)
        try:
            return parse_image_configuration(read_file(path, MAX_BLOB), where=path), ""
        except (OSError, InvalidFormat) as error:
            return None, f"its configuration cannot be understood: {error}"

    def _plan_new_record(
        self, image_id: Digest, configuration: ImageConfiguration, names: list[NameRecord], path: str
    ) -> str:
        """All of an image is there but for a usable record: it can be made anew. Return why not, else ``""``."""
        manifest = self._find_manifest(image_id, (d for name in names for d in name.digests))
        if manifest is None:
            return "its record cannot be read, and its manifest is not here"
        record = ImageRecord(
            image_id,
            manifest=manifest,
            layers=configuration.diff_ids,
            size=sum(self._layers[diff_id].size for diff_id in dict.fromkeys(configuration.diff_ids)),
            created=configuration.created,
            platform=str(configuration.platform),
            pulled=int(_age_mark(path)),
            names=names,
        )
        self._accept(record)
        self._add(
            "image-record",
            Severity.DAMAGE,
            f"the record of the image {record.short_id}{_list_names(names)} cannot be used",
            path,
            repair="make it anew: all that the image consists of is here",
            mend=partial(self._renew_record, record, path),
        )
        return ""

    def _renew_record(self, record: ImageRecord, path: str) -> None:
        if _is_directory(path):
            self._discard(path)
        self._images.add(record)

    def _find_manifest(self, image_id: Digest, likely: Iterable[Digest]) -> Digest | None:
        for digest in dict.fromkeys((*likely, *sorted(self._blobs))):
            if not self._is_usable(digest) or digest == image_id:
                continue
            path = self._store.blob(digest)
            try:
                document = parse_manifest(read_file(path, MAX_BLOB), None, where=path)
            except (OSError, UsercontainerError):
                continue
            if isinstance(document, Manifest) and document.config.digest == image_id:
                return digest
        return None

    def _lose_image(
        self,
        image_id: Digest,
        reason: str,
        names: list[NameRecord],
        configuration: ImageConfiguration | None,
        path: str,
    ) -> None:
        self._lost[image_id] = reason
        left = [d for d in (configuration.diff_ids if configuration else ()) if d in self._layers]
        self._wanted.update(left)
        again = " and ".join(f"`usercontainer pull {name.name}`" for name in names)
        self._add(
            "image",
            Severity.DAMAGE,
            f"the image {image_id.hex[:12]}{_list_names(names)} cannot be used: {reason}",
            path,
            repair="forget it" + (f"; {again} gets it again" if again else ""),
            mend=partial(self._forget_image, path, names, left),
        )

    def _forget_image(self, path: str, names: list[NameRecord], left: list[Digest]) -> None:
        for name in names:
            self._images.remove_name(name.name)
        self._remove(path)
        for diff_id in left:
            # Nothing needs them now, but whoever pulls the image again: their time begins anew.
            os.utime(f"{self._store.layer(diff_id)}/layer.json")

    def _check_indexes(self, names: list[NameRecord]) -> set[Digest]:
        """Return the IDs of the indexes, those included that cannot be read: their names go with them."""
        indexes = IndexStore(self._store)
        ids = set(indexes.list_ids())
        for index_id in sorted(ids):
            path = indexes.path(index_id)
            if indexes.read(index_id) is not None:
                continue
            own = [name for name in names if name.image == index_id]
            self._add(
                "index",
                Severity.DAMAGE,
                f"the record of the index {index_id.hex[:12]}{_list_names(own)} cannot be read",
                path,
                repair="forget it; it has to be made again",
                mend=partial(self._forget_image, path, own, []),
            )
        return ids

    def _check_names(self, names: list[NameRecord], bad: list[str]) -> None:
        for name in names:
            if name.image in self._whole or name.image in self._lost or name.image in self._pending:
                continue
            self._add(
                "name",
                Severity.DAMAGE,
                f"the name {name.name} leads to the image {name.image.hex[:12]}, which is not here",
                f"{self._store.names}/{name_file(name.name)}",
                repair=f"remove it; `usercontainer pull {name.name}` gets the image",
                mend=partial(self._images.remove_name, name.name),
            )
        for path in bad:
            file = os.path.basename(path)
            likely = "" if "%%" in file else file.removesuffix(".json").replace("%", "/")
            self._add(
                "name",
                Severity.DAMAGE,
                f"the record of the name {likely or file} cannot be read",
                path,
                repair="remove it" + (f"; pull or tag {likely} again" if likely else ""),
                mend=partial(self._remove, path),
            )

    # Layers and blobs

    def _check_layers(self) -> None:
        used = find_layers_in_use(self._store.runtime)
        mounted = list_mounted_layers(self._store.runtime)
        for diff_id, reason in self._bad_layers.items():
            running = used.get(diff_id.hex, ())
            self._add(
                "layer",
                Severity.DAMAGE,
                f"the layer {diff_id.hex[:12]} is damaged: {reason}",
                self._store.layer(diff_id),
                repair=f"stop the container {running[0]} that runs on it, then repair again"
                if running
                else "remove it",
                mend=partial(self._discard_layer, diff_id),
            )
        for diff_id in self._layers:
            path = self._store.layer(diff_id)
            if diff_id in self._wanted or not self._is_old(f"{path}/layer.json"):
                continue
            if diff_id.hex in used or diff_id.hex in mounted:
                continue
            if not self._is_held(diff_id):
                self._add(
                    "unused-layer",
                    Severity.LEFTOVER,
                    f"no image has the layer {diff_id.hex[:12]}",
                    path,
                    repair="remove it",
                    mend=partial(self._discard_layer, diff_id),
                )

    def _discard_layer(self, diff_id: Digest) -> None:
        layers = self._images.layers
        with layers.lock_use():
            running = find_layers_in_use(self._store.runtime).get(diff_id.hex)
            if running:
                raise InUse(f"the container {running[0]} runs on it")
            if diff_id.hex in list_mounted_layers(self._store.runtime):
                raise InUse("an image is mounted from it")
            with layers.lock(diff_id, wait=False):
                layers.discard(diff_id)

    def _check_blobs(self, names: list[NameRecord]) -> None:
        for digest, reason in self._bad_blobs.items():
            self._add(
                "blob",
                Severity.DAMAGE,
                f"the blob {digest.hex[:12]} is damaged: {reason}",
                self._store.blob(digest),
                repair="remove it",
                mend=partial(self._remove, self._store.blob(digest)),
            )
        self._note_missing_manifests(names)
        if self._pending:
            return  # what they need is not known yet
        needed = {digest for record in self._whole.values() for digest in (record.id, record.manifest)}
        needed.update(digest for name in names if name.image in self._whole for digest in name.digests)
        needed.update(blob.digest for layer in self._layers.values() for blob in layer.blobs)
        for digest in sorted(self._blobs - needed - set(self._bad_blobs)):
            path = self._store.blob(digest)
            if self._is_old(path):
                self._add(
                    "unused-blob",
                    Severity.LEFTOVER,
                    f"nothing needs the blob {digest.hex[:12]}",
                    path,
                    repair="remove it",
                    mend=partial(self._remove, path),
                )

    def _note_missing_manifests(self, names: list[NameRecord]) -> None:
        for image_id, record in self._whole.items():
            own = [name for name in names if name.image == image_id]
            wanted = dict.fromkeys((record.manifest, *(d for name in own for d in name.digests)))
            missing = [digest for digest in wanted if not self._is_usable(digest)]
            if missing:
                again = f"`usercontainer pull {own[0].name}` gets it again" if own else ""
                self._add(
                    "manifest",
                    Severity.NOTE,
                    f"the manifest {missing[0].hex[:12]} of the image {record.short_id}{_list_names(own)} is not here: "
                    "the image works, but cannot be pushed or saved as it came",
                    self._store.blob(missing[0]),
                    repair=again,
                )

    def _is_old(self, path: str) -> bool:
        return self._now - _age_mark(path) >= self._max_age

    def _remove(self, path: str) -> None:
        if _is_directory(path):
            self._discard(path)
            return
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass

    def _discard(self, path: str) -> None:
        os.rename(path, f"{self._store.trash}/check-{os.urandom(6).hex()}")


def _list_names(names: list[NameRecord]) -> str:
    return f" ({', '.join(name.name for name in names)})" if names else ""


def _read_hex(text: str) -> Digest | None:
    digest = f"{'sha512' if len(text) == 128 else 'sha256'}:{text}"
    return Digest(digest) if is_digest(digest) else None


def _list(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_directory(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _age_mark(path: str) -> float:
    try:
        return os.lstat(path).st_mtime
    except OSError:
        return 0.0
