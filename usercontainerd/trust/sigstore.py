"""Signatures of cosign and its like, with a public key: ECDSA, RSA (PKCS #1 1.5) and Ed25519, SHA-256.

The package ``cryptography`` does the work. It is optional: without it, nothing that needs it is accepted.
"""

from __future__ import annotations

import base64
import binascii

from usercontainerd.base.errors import HostError
from usercontainerd.trust.rejection import SignatureRejected
from usercontainerd.trust.signatures import COSIGN_SIGNATURE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    from usercontainerd.trust.signatures import SigstoreSignature

    class PublicKey(Protocol):
        """Says whether a signature is one of this key."""

        def __call__(self, signature: bytes, payload: bytes, /) -> bool: ...  # noqa: D102


def load_keys(texts: Iterable[bytes]) -> list[PublicKey]:
    """Read public keys (PEM). Raises ``HostError`` for what is not one, or if ``cryptography`` is not installed."""
    try:
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
    except ImportError:
        raise HostError(
            "the Python package cryptography is not installed, and the policy wants a sigstore signature checked",
            hint="install python3-cryptography",
        ) from None

    def load(text: bytes) -> PublicKey:
        try:
            key = serialization.load_pem_public_key(text)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise HostError("a sigstore key of the policy is not a public key in PEM form") from None
        if not isinstance(key, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey, ed25519.Ed25519PublicKey)):
            raise HostError("a sigstore key of the policy is neither ECDSA, RSA nor Ed25519")

        def verify(signature: bytes, payload: bytes, /) -> bool:
            try:
                if isinstance(key, ec.EllipticCurvePublicKey):
                    key.verify(signature, payload, ec.ECDSA(hashes.SHA256()))
                elif isinstance(key, rsa.RSAPublicKey):
                    key.verify(signature, payload, padding.PKCS1v15(), hashes.SHA256())
                else:
                    key.verify(signature, payload)
            except InvalidSignature:
                return False
            return True

        return verify

    return [load(text) for text in texts]


def verify_sigstore(signature: SigstoreSignature, keys: Iterable[PublicKey]) -> bytes:
    """Return the payload. Raises ``SignatureRejected`` unless one of the keys has signed it."""
    encoded = dict(signature.annotations).get(COSIGN_SIGNATURE)
    if encoded is None:
        raise SignatureRejected(f"it has no annotation {COSIGN_SIGNATURE}")
    try:
        raw = base64.b64decode(encoded.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        raise SignatureRejected("it is not valid Base64") from None
    if not any(verify(raw, signature.payload) for verify in keys):
        raise SignatureRejected(
            "it is not a signature of a key that the policy trusts, or what it signs was changed"
        )
    return signature.payload
