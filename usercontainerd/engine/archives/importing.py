"""Use case: make an image of one layer from a tar archive of a root file system."""

from __future__ import annotations

import json
import os
import stat
import time
from contextlib import ExitStack

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.engine.archives.input import make_seekable, open_input
from usercontainerd.engine.archives.loading import STANDARD_INPUT
from usercontainerd.engine.archives.members import copy_checked
from usercontainerd.engine.archives.output import read_pieces
from usercontainerd.engine.archives.saving import OCI_TAR, build_oci_manifest
from usercontainerd.engine.containers.inspection import format_rfc3339
from usercontainerd.engine.images.local import ignore_progress
from usercontainerd.engine.phases import Phase
from usercontainerd.engine.registries.admission import read_admission
from usercontainerd.engine.transfers.pulling import Pull
from usercontainerd.oci.digest import Digest, compute_digest, new_hash
from usercontainerd.oci.manifest import OCI_MANIFEST, Descriptor, FetchedManifest
from usercontainerd.oci.platform import plan_host_platform
from usercontainerd.oci.reference import Reference
from usercontainerd.store.layout import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from usercontainerd.engine.context import Context
    from usercontainerd.engine.images.local import Progress
    from usercontainerd.oci.platform import Platform
    from usercontainerd.store.records import ImageRecord

MESSAGE = "imported from tarball"  # podman's


class TarballSource:
    """An image as a pull takes it, of which one layer at most is not here yet: the tar archive at ``fd``."""

    def __init__(self, fd: int, configuration: bytes, manifest: bytes, media_type: str, where: str) -> None:
        self._fd = fd
        self._configuration = configuration
        self._manifest = manifest
        self._media_type = media_type
        self._where = where

    def close(self) -> None:
        """The archive is closed by whoever opened it."""

    def fetch_manifest(self, _wanted: str) -> FetchedManifest:
        """Return the manifest."""
        return FetchedManifest(self._manifest, compute_digest(self._manifest), self._media_type, self._where)

    def fetch_blob(self, _blob: Descriptor, *, limit: int) -> bytes:
        """Return the configuration."""
        return self._configuration

    def copy_blob(
        self,
        blob: Descriptor,
        write: Callable[[bytes], object],
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Hand the archive to ``write``. Raises ``DigestMismatch`` if it was changed meanwhile."""
        copy_checked(read_pieces(self._fd), blob, write, progress, self._where)


def import_image(
    context: Context,
    path: str | None,
    name: Reference | None,
    *,
    config: Mapping[str, Any],
    message: str = MESSAGE,
    platform: Platform | None = None,
    stdin: int = 0,
    progress: Progress = ignore_progress,
) -> ImageRecord:
    """Make an image of the archive at ``path`` (None: of what comes from ``stdin``), and return it.

    ``config`` is what the image says about how to run it (see ``engine.images.instructions``). The image is as old as
    the file, so that the same file makes the same image. Raises ``InvalidArgument``, ``PullDenied``, ``InvalidFormat``,
    ``StoreError``…
    """
    if path is not None and path.startswith(("http://", "https://")):
        raise InvalidArgument(
            "archives are not fetched from the network",
            where=path,
            hint=f"curl -fL {path} | usercontainer import - NAME",
        )
    where = STANDARD_INPUT if path is None else path
    admission = read_admission(context)
    with ExitStack() as stack:
        fd = stdin if path is None else open_input(path)
        if path is not None:
            stack.callback(os.close, fd)
        status = os.fstat(fd)
        created = status.st_mtime if path is not None and stat.S_ISREG(status.st_mode) else time.time()
        archive = make_seekable(
            Store(context.paths),
            fd,
            where=where,
            report=lambda done: progress(Phase.READ, where, done, 0),
        )
        stack.callback(os.close, archive)
        layer = describe_archive(archive)
        configuration = build_configuration(
            layer.digest,
            config,
            created=format_rfc3339(created),
            platform=platform or plan_host_platform(os.uname().machine),
            message=message,
        )
        with Pull(
            context,
            TarballSource(
                archive, configuration, build_oci_manifest(configuration, [layer]), OCI_MANIFEST, where
            ),
            name or Reference("", where),
            approve=admission.for_tarball(name),
            progress=progress,
            names=() if name is None else (name,),
        ) as pull:
            return pull.run()


def describe_archive(fd: int) -> Descriptor:
    """Read the archive once."""
    state = new_hash("sha256")
    size = 0
    for piece in read_pieces(fd):
        state.update(piece)
        size += len(piece)
    if not size:
        raise InvalidArgument("the archive is empty")
    return Descriptor(OCI_TAR, Digest(f"sha256:{state.hexdigest()}"), size)


def build_configuration(
    diff_id: Digest, config: Mapping[str, Any], *, created: str, platform: Platform, message: str
) -> bytes:
    """The configuration of an image of one layer (OCI config.md). Pure."""
    document: dict[str, Any] = {
        "created": created,
        "architecture": platform.architecture,
        **({"variant": platform.variant} if platform.variant else {}),
        "os": platform.os,
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [
            {
                "created": created,
                "created_by": f"/bin/sh -c #(nop) ADD file:{diff_id.hex} in / ",
                "comment": message,
            }
        ],
    }
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
