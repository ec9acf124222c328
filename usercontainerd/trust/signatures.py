"""Signatures as they are stored: a GPG message, or a sigstore payload with its annotations.

A file ``signature-N`` tells by its first byte which one it is, as containers/image stores them.
"""

from __future__ import annotations

from usercontainerd.base.errors import InvalidFormat
from usercontainerd.base.records import dataclass
from usercontainerd.base.typedjson import parse_json
from usercontainerd.trust.strictjson import read_base64, read_members

MAX_SIGNATURES = 128  # of one image, as in containers/image
MAX_SIGNATURE = 1024 * 1024  # bytes
COSIGN_PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
COSIGN_SIGNATURE = "dev.cosignproject.cosign/signature"
# The first byte of an OpenPGP message: a packet of compressed data, a one-pass signature or a signature, in the old
# format (four lengths each) and in the new one (RFC 9580, 4.2).
_OPENPGP = frozenset((*range(0xA0, 0xA4), 0xC8, *range(0x90, 0x94), 0xC4, *range(0x88, 0x8C), 0xC2))


@dataclass(frozen=True)
class SimpleSignature:
    """A GPG message that holds the claim (containers-signature(5))."""

    message: bytes


@dataclass(frozen=True)
class SigstoreSignature:
    """A claim as cosign writes it; the signature is among the annotations. Nothing of it has been checked."""

    media_type: str
    payload: bytes
    annotations: tuple[tuple[str, str], ...]


Signature = SimpleSignature | SigstoreSignature


def parse_signature(data: bytes, where: str) -> Signature:
    """Tell what is in a file ``signature-N``. Raises ``InvalidFormat``."""
    if len(data) > MAX_SIGNATURE:
        raise InvalidFormat(f"the signature is longer than the {MAX_SIGNATURE} bytes allowed", where=where)
    if data and data[0] in _OPENPGP:
        return SimpleSignature(data)
    if data and data[0] == 0:
        kind, newline, rest = data[1:].partition(b"\n")
        if newline and kind == b"simple-signing":
            return SimpleSignature(rest)
        if newline and kind == b"sigstore-json":
            return _parse_sigstore(rest, where)
    raise InvalidFormat("this is not a signature of a kind that is known", where=where)


def _parse_sigstore(data: bytes, where: str) -> SigstoreSignature:
    document = parse_json(data, "signature", limit=MAX_SIGNATURE, source=where)
    members = read_members(document, required=("mimeType", "payload"), optional=("annotations",))
    annotations = members["annotations"].text_map() if "annotations" in members else ()
    return SigstoreSignature(members["mimeType"].text(), read_base64(members["payload"]), annotations)
