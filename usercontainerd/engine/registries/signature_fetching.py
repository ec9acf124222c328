"""Where the signatures of a registry's image are fetched: its own list, a lookaside, what cosign has attached."""

from __future__ import annotations

import base64
import binascii
import os
from urllib.parse import urlsplit

from usercontainerd.base.errors import InvalidFormat
from usercontainerd.base.typedjson import parse_json
from usercontainerd.oci.digest import compute_digest
from usercontainerd.registry.certificates import find_certificates
from usercontainerd.registry.signature_files import (
    fetch_attachments,
    fetch_signature_file,
    fetch_signature_list,
)
from usercontainerd.trust.lookaside import lookaside_directories, read_local_signature, read_lookaside
from usercontainerd.trust.signatures import (
    COSIGN_PAYLOAD,
    MAX_SIGNATURE,
    MAX_SIGNATURES,
    SigstoreSignature,
    SimpleSignature,
    parse_signature,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from usercontainerd.engine.context import Context
    from usercontainerd.oci.digest import Digest
    from usercontainerd.oci.manifest import FetchedManifest
    from usercontainerd.oci.reference import Reference
    from usercontainerd.registry.client import RegistryClient
    from usercontainerd.trust.lookaside import SignatureStorage
    from usercontainerd.trust.signatures import Signature

MAX_LIST = 16 * 1024 * 1024  # bytes of the registry's own list of signatures


def fetch_registry_signatures(
    context: Context, home_configs: Sequence[str], client: RegistryClient, document: FetchedManifest
) -> list[Signature]:
    """Fetch the signatures of a manifest: the registry's own list, else the lookaside; and what is attached.

    ``home_configs`` are the directories of the user's configuration. Raises ``RegistryError``, ``InvalidFormat``…
    """
    # They are kept by this digest, whichever the image was asked for by.
    manifest = compute_digest(document.data)
    directories = lookaside_directories(home_configs)
    place = client.session.endpoint.reference
    storage = read_lookaside(directories, context.home).locate(place)
    listing = fetch_signature_list(client.session, manifest, limit=MAX_LIST)
    if listing is None:
        signatures = _fetch_lookaside(context, storage, place, manifest)
    else:
        signatures = parse_signature_list(listing, client.repository)
    if storage.attachments:
        signatures += _fetch_attached(client, manifest)
    return signatures


def parse_signature_list(data: bytes, where: str) -> list[Signature]:
    """Parse a registry's own list of signatures; those of kinds that are not known are left out. Pure."""
    document = parse_json(data, "signatures", limit=MAX_LIST, source=where)
    signatures: list[Signature] = []
    for entry in document.get("signatures").elements(limit=MAX_SIGNATURES):
        if entry.get("schemaVersion").integer(0) != 2 or entry.get("type").text("") != "atomic":
            continue
        try:
            message = base64.b64decode(entry.get("content").text().encode("ascii"), validate=True)
        except (binascii.Error, ValueError):
            raise InvalidFormat(f"{entry.path}.content is not valid Base64", where=where) from None
        signatures.append(SimpleSignature(message))
    return signatures


def _fetch_lookaside(
    context: Context, storage: SignatureStorage, place: Reference, manifest: Digest
) -> list[Signature]:
    with LookasideReader(context, storage) as reader:
        signatures: list[Signature] = []
        # One more than allowed: too many is an error, not a reason to stop looking.
        for number in range(1, MAX_SIGNATURES + 2):
            url = storage.locate(place.repository, manifest, number)
            data = reader.read(url)
            if data is None:
                break
            signatures.append(parse_signature(data, url))
        return signatures


class LookasideReader:
    """Reads files of a lookaside, local or remote; use as a context manager."""

    def __init__(self, context: Context, storage: SignatureStorage) -> None:
        self._is_local = storage.base.startswith("file:")
        if not self._is_local:
            # Not needed for a directory: it imports requests.
            from usercontainerd.registry.transport import Transport

            environment = dict(context.environment)
            host = urlsplit(storage.base).netloc
            home_config = os.path.dirname(context.paths.config)
            self._transport = Transport(environment, find_certificates(host, home_config, environment))

    def __enter__(self) -> LookasideReader:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._is_local:
            self._transport.close()

    def read(self, url: str) -> bytes | None:
        """Return a file, None if it is not there. Raises ``HostError``, ``RegistryError``."""
        if self._is_local:
            return read_local_signature(url, MAX_SIGNATURE)
        return fetch_signature_file(self._transport, url, limit=MAX_SIGNATURE)


def _fetch_attached(client: RegistryClient, manifest: Digest) -> list[Signature]:
    attached = fetch_attachments(client, manifest, COSIGN_PAYLOAD, most=MAX_SIGNATURES, limit=MAX_SIGNATURE)
    return [SigstoreSignature(layer.media_type, data, layer.annotations) for layer, data in attached]
