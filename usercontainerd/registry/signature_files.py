"""Signatures where registries keep them: on a web server beside it (lookaside), in a list of its own, or attached.

What is fetched here is not believed: whoever checks a signature decides what it is worth. So any server may give
one; but a lookaside gets no credentials, and all that comes is bounded.
"""

from __future__ import annotations

from usercontainerd.base.errors import InvalidFormat, NoSuchImage, RegistryError
from usercontainerd.oci.manifest import Manifest, parse_manifest
from usercontainerd.registry.origins import find_origin, resolve_target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.oci.digest import Digest
    from usercontainerd.oci.manifest import Descriptor
    from usercontainerd.registry.client import RegistryClient
    from usercontainerd.registry.session import Session
    from usercontainerd.registry.transport import Transport

MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)


def fetch_signature_file(transport: Transport, url: str, *, limit: int) -> bytes | None:
    """Fetch a file of a lookaside, None if the server says that it is not there. Raises ``RegistryError``."""
    host = find_origin(url)[1]
    for _ in range(MAX_REDIRECTS + 1):
        response = transport.request("GET", url, {})
        if response.status == 200:
            return response.read_all(limit)
        location = response.header("Location")
        response.close()
        if response.status in (404, 410):
            return None
        if response.status not in _REDIRECTS or not location:
            raise RegistryError(f"the server of signatures answers with status {response.status}", where=url)
        url = resolve_target(url, location, registry=host)
    raise RegistryError(f"more than {MAX_REDIRECTS} redirects", where=url)


def fetch_signature_list(session: Session, digest: Digest, *, limit: int) -> bytes | None:
    """Fetch the registry's own list of a manifest's signatures (JSON); None if it does not keep one.

    That is OpenShift's extension of the protocol, announced by a header. Raises ``RegistryError``, ``PullDenied``.
    """
    base = session.find_base()
    answer = session.follow("GET", f"{base}/v2/", {}, None)
    answer.close()
    if answer.header("X-Registry-Supports-Signatures") != "1":
        return None
    repository = session.endpoint.reference.repository
    response = session.request("GET", f"{base}/extensions/v2/{repository}/signatures/{digest}")
    session.expect(response, (200,))
    return response.read_all(limit)


def fetch_attachments(
    client: RegistryClient, digest: Digest, media_type: str, *, most: int, limit: int
) -> list[tuple[Descriptor, bytes]]:
    """Fetch what cosign has attached to a manifest: the layers of ``media_type`` of the image ``ALGORITHM-HEX.sig``.

    ``most`` limits their number, ``limit`` the bytes of each. Raises ``RegistryError``, ``InvalidFormat``,
    ``DigestMismatch``, ``PullDenied``.
    """
    try:
        fetched = client.fetch_manifest(f"{digest.algorithm}-{digest.hex}.sig")
    except NoSuchImage:
        return []
    manifest = parse_manifest(fetched.data, fetched.media_type, where=fetched.where)
    if not isinstance(manifest, Manifest):
        raise InvalidFormat("the signatures are an index of images", where=fetched.where)
    layers = [layer for layer in manifest.layers if layer.media_type == media_type]
    if len(layers) > most:
        raise InvalidFormat(f"more than {most} signatures are attached to the image", where=fetched.where)
    return [(layer, client.fetch_blob(layer, limit=limit)) for layer in layers]
