"""What refers to a manifest, kept under a tag where a registry has no list of its own.

Distribution specification 1.1, "Pushing Manifests with Subject" and "Referrers Tag Schema": a registry that lists
referrers says ``OCI-Subject`` when it takes one. Where none is said, whoever pushes keeps an index under a
tag made of the subject's digest. Two who do so at once overwrite each other's: whoever wrote looks again.
"""

from __future__ import annotations

import json
import re

from usercontainerd.base.errors import RegistryError, UsercontainerError
from usercontainerd.oci.digest import Digest
from usercontainerd.oci.index import ImageIndex, Instance, parse_index, render_index
from usercontainerd.oci.manifest import (
    MAX_MANIFEST,
    MAX_MANIFESTS,
    OCI_INDEX,
    OCI_MANIFEST,
    Manifest,
    parse_manifest,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from usercontainerd.registry.session import Session

TRIES = 4  # to write the list, and to find it as written


def name_referrers_tag(digest: Digest) -> str:
    """The tag of the index of what refers to ``digest``. Pure."""
    return re.sub("[^A-Za-z0-9._-]", "-", f"{digest.algorithm[:32]}-{digest.hex[:64]}")


def find_subject(data: bytes, digest: Digest, media_type: str) -> tuple[Digest, Instance] | None:
    """What a manifest or index refers to, and its own entry in the list of those that do; None if nothing. Pure."""
    if b'"subject"' not in data or media_type not in (OCI_MANIFEST, OCI_INDEX):
        return None
    if media_type == OCI_INDEX:
        index = parse_index(data)
        subject, annotations, kind = index.subject, index.annotations, index.artifact_type
        target = None if subject is None else subject.digest
    else:
        manifest = parse_manifest(data, media_type)
        if not isinstance(manifest, Manifest):
            return None
        target = None if manifest.subject is None else manifest.subject.digest
        annotations, kind = manifest.annotations, manifest.artifact_type or manifest.config.media_type
    if target is None:
        return None
    return target, Instance(media_type, digest, len(data), annotations=annotations, artifact_type=kind)


def list_under_tag(
    session: Session,
    scope: tuple[str, ...],
    put: Callable[[str, bytes], object],
    subject: Digest,
    entry: Instance,
) -> None:
    """Have ``entry`` in the list of what refers to ``subject``; ``put`` writes an index under a tag.

    Raises ``RegistryError``: the manifest itself is in the registry then.
    """
    tag = name_referrers_tag(subject)
    try:
        for _ in range(TRIES):
            data = _read_list(session, scope, tag)
            if parse_index(data).find(entry.digest) is not None:
                return
            put(tag, add_entry(data, entry))
    except UsercontainerError as error:
        raise RegistryError(
            f"{entry.digest} is in the registry, but not in its list of what refers to {subject}: {error}",
            where=f"{session.repository}:{tag}",
        ) from error
    raise RegistryError(
        f"others write the list of what refers to {subject}, too", where=f"{session.repository}:{tag}"
    )


def add_entry(data: bytes, entry: Instance) -> bytes:
    """Return the index ``data`` with one entry more, and everything else as it was. Pure."""
    document = json.loads(data)
    entries = document.setdefault("manifests", [])
    if len(entries) >= MAX_MANIFESTS:
        raise RegistryError(f"the list has {MAX_MANIFESTS} entries already")
    entries.append(entry.render(docker=False))
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def _read_list(session: Session, scope: tuple[str, ...], tag: str) -> bytes:
    response = session.get(f"manifests/{tag}", {"Accept": OCI_INDEX}, scope=scope)
    if response.status == 404:
        response.close()
        return render_index(ImageIndex())
    session.expect(response, (200,))
    data = response.read_all(MAX_MANIFEST)
    if isinstance(parse_manifest(data, response.header("Content-Type")), Manifest):
        raise RegistryError("under the tag of that list is something else")
    return data
