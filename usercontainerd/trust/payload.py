"""The claim that a signature signs: a JSON document that names a manifest's digest and a reference.

Parsed only after its signature was found good, and then strictly (containers-signature(5)): what is not understood
in its critical part makes it worthless.
"""

from __future__ import annotations

from usercontainerd.base.errors import InvalidFormat, InvalidReference
from usercontainerd.base.records import dataclass
from usercontainerd.base.typedjson import parse_json
from usercontainerd.oci.digest import compute_digest, is_digest
from usercontainerd.trust.identity import parse_full_reference
from usercontainerd.trust.rejection import SignatureRejected
from usercontainerd.trust.strictjson import read_members

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.base.typedjson import JsonValue
    from usercontainerd.oci.reference import Reference
    from usercontainerd.trust.identity import IdentityRule

SIMPLE = "atomic container signature"
COSIGN = "cosign container image signature"
MAX_PAYLOAD = 1024 * 1024


@dataclass(frozen=True)
class Claim:
    """What was signed: the digest of a manifest, and what that image is said to be."""

    digest: str
    reference: str


def parse_claim(data: bytes, kind: str) -> Claim:
    """Parse a claim of the type ``kind``, ``SIMPLE`` or ``COSIGN``. Raises ``InvalidFormat``."""
    document = parse_json(data, "payload", limit=MAX_PAYLOAD)
    raw = document.raw if isinstance(document.raw, dict) else {}
    # cosign writes "optional": null where there is nothing optional.
    bare = kind == COSIGN and "optional" in raw and raw["optional"] is None
    if bare:
        del raw["optional"]
    members = read_members(document, required=("critical",) if bare else ("critical", "optional"))
    if not bare:
        _check_optional(members["optional"])
    critical = read_members(members["critical"], required=("type", "image", "identity"))
    if critical["type"].text() != kind:
        critical["type"].fail(f"{critical['type'].text()[:80]!r} is not {kind!r}")
    image = read_members(critical["image"], required=("docker-manifest-digest",))
    identity = read_members(critical["identity"], required=("docker-reference",))
    return Claim(image["docker-manifest-digest"].text(), identity["docker-reference"].text())


def _check_optional(value: JsonValue) -> None:
    """Anything may stand there, but what is known must be what it should be."""
    if not isinstance(value.raw, dict):
        value.fail("must be an object")
    if value.has("creator"):
        value.get("creator").text()
    stamp = value.get("timestamp")
    if isinstance(stamp.raw, float) and not stamp.raw.is_integer():
        stamp.fail("must be a whole number")
    if not stamp.is_null and (isinstance(stamp.raw, bool) or not isinstance(stamp.raw, (int, float))):
        stamp.fail("must be a number")


def check_claim(
    data: bytes, kind: str, manifest: bytes, image: Reference | None, rule: IdentityRule
) -> Claim:
    """Raise ``SignatureRejected`` unless ``data``, whose signature is good, claims this manifest and this identity."""
    try:
        claim = parse_claim(data, kind)
    except InvalidFormat as error:
        raise SignatureRejected(f"what it signs cannot be understood: {error}") from None
    if not is_digest(claim.digest):
        raise SignatureRejected(f"it is for {claim.digest[:200]!r}, which is not a digest")
    actual = compute_digest(manifest, claim.digest.partition(":")[0])
    if actual != claim.digest:
        raise SignatureRejected(f"it is for another image ({claim.digest}), not for this one ({actual})")
    try:
        signed = parse_full_reference(claim.reference)
    except InvalidReference as error:
        raise SignatureRejected(f"it names no image: {error.what}") from None
    if not rule.accepts(image, signed):
        raise SignatureRejected(
            f"it is for the name {signed}, which the policy does not accept for {image or 'this'}"
        )
    return claim
