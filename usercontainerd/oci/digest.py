"""Digests (OCI image specification, descriptor.md): checked in full before one gets into a path or a URL."""

from __future__ import annotations

import re

from usercontainerd.base.errors import DigestMismatch, InvalidFormat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hashlib import _Hash

_SMALL = 1 << 16  # bytes, which take less time either way than OpenSSL takes to load
_PATTERN = re.compile(r"(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\Z", re.ASCII)


class Digest(str):
    """A registered digest in its text form, ``sha256:…`` or ``sha512:…``; made by ``parse_digest`` only."""

    __slots__ = ()

    @property
    def algorithm(self) -> str:
        """``sha256`` or ``sha512``."""
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        """Lower-case hexadecimal digits: safe as a file name."""
        return self.partition(":")[2]


def is_digest(text: str) -> bool:
    """Tell whether ``text`` is a digest that we can verify."""
    return _PATTERN.match(text) is not None


def parse_digest(text: str, *, where: str | None = None) -> Digest:
    """Return ``text`` as a digest. Raises ``InvalidFormat`` for any other syntax or algorithm."""
    if not is_digest(text):
        raise InvalidFormat(
            f"not a digest: {text[:200]!r}",
            where=where,
            hint="sha256 or sha512, a colon, lower-case hexadecimal",
        )
    return Digest(text)


def new_hash(algorithm: str) -> _Hash:
    """Return a hash object of one of the registered algorithms."""
    # hashlib costs 5 ms (OpenSSL): only what really hashes pays for it.
    import hashlib

    return hashlib.sha512() if algorithm == "sha512" else hashlib.sha256()


def compute_digest(data: bytes, algorithm: str = "sha256") -> Digest:
    """Return the digest of ``data``."""
    state = _new_small_hash(algorithm) if len(data) <= _SMALL else new_hash(algorithm)
    state.update(data)
    return Digest(f"{algorithm}:{state.hexdigest()}")


def _new_small_hash(algorithm: str) -> _Hash:
    """The same without OpenSSL: slower (a third of its speed), and there at once."""
    try:
        import _sha2  # type: ignore[import-not-found]  # the C half of hashlib since Python 3.12
    except ImportError:
        return new_hash(algorithm)
    state: _Hash = _sha2.sha512() if algorithm == "sha512" else _sha2.sha256()
    return state


def check_digest(data: bytes, expected: Digest, *, what: str, where: str | None = None) -> None:
    """Raise ``DigestMismatch`` naming both digests unless ``data`` has the digest ``expected``."""
    actual = compute_digest(data, expected.algorithm)
    if actual != expected:
        raise explain_mismatch(expected, actual, what=what, where=where)


def explain_mismatch(expected: str, actual: str, *, what: str, where: str | None = None) -> DigestMismatch:
    """The error for bytes that are not what was promised; names both digests."""
    return DigestMismatch(
        f"the {what} is not the promised one: expected {expected}, got {actual}",
        where=where,
        hint="it was changed or damaged on the way or in the registry; nothing of it was kept",
    )
