"""Whether an image meets the policy. Whatever goes wrong on the way, the answer is no.

All requirements of the most specific scope must be met; for one that wants a signature, one good signature is
enough, and others beside it, of whatever kind, do no harm. Most policies want no signature of most images: what checks
them is imported when one is wanted.
"""

from __future__ import annotations

from usercontainerd.base.errors import HostError, PullDenied, UsercontainerError
from usercontainerd.trust.policy import AcceptAnything, Reject, SignedBy, SigstoreSigned, Unsupported
from usercontainerd.trust.rejection import SignatureRejected

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from usercontainerd.trust.policy import Policy, Requirement
    from usercontainerd.trust.scopes import ImageIdentity
    from usercontainerd.trust.signatures import Signature, SigstoreSignature, SimpleSignature

    AnySignature = TypeVar("AnySignature")

MAX_REASONS = 5  # that a message names


class Tools:
    """``search_path``: where gpg is looked for. ``directory``: for its temporary home, None for the usual place."""

    __slots__ = ("directory", "search_path")

    def __init__(self, search_path: str, directory: str | None = None) -> None:
        self.search_path = search_path
        self.directory = directory


class Evaluation:
    """One image before one policy. ``fetch_signatures`` is called at most once, and only if one is wanted."""

    def __init__(
        self,
        policy: Policy,
        image: ImageIdentity,
        manifest: bytes,
        fetch_signatures: Callable[[], Sequence[Signature]],
        tools: Tools,
    ) -> None:
        self._policy = policy
        self._image = image
        self._manifest = manifest
        self._fetch = fetch_signatures
        self._tools = tools
        self._signatures: Sequence[Signature] | None = None

    def run(self) -> None:
        """Return if the image may be taken. Raises ``PullDenied`` saying why not, and which line says so."""
        requirements = self._policy.find_requirements(self._image)
        if not requirements:
            raise self._deny("the policy says nothing about it", None)
        for requirement in requirements:
            try:
                self._check(requirement)
            except SignatureRejected as error:
                raise self._deny(error.reason, requirement) from None
            except UsercontainerError as error:
                raise self._deny(str(error), requirement) from error

    def _deny(self, reason: str, requirement: Requirement | None) -> PullDenied:
        place = f"{requirement.where} in {self._policy.path}" if requirement else self._policy.path
        name = str(self._image.reference or (self._image.scopes or ("image",))[0])
        return PullDenied(f"the signature policy refuses it: {reason}", where=name, hint=f"see {place}")

    def _check(self, requirement: Requirement) -> None:
        if isinstance(requirement, AcceptAnything):
            return
        if isinstance(requirement, Reject):
            raise SignatureRejected("no image of this origin is accepted")
        if isinstance(requirement, Unsupported):
            raise SignatureRejected(f"it wants what is not supported here: {requirement.what}")
        if isinstance(requirement, SignedBy):
            self._check_signed_by(requirement)
        elif isinstance(requirement, SigstoreSigned):
            self._check_sigstore_signed(requirement)
        else:
            raise SignatureRejected("it wants what is not known here")

    def _get_signatures(self) -> Sequence[Signature]:
        if self._signatures is None:
            from usercontainerd.trust.signatures import MAX_SIGNATURES

            signatures = self._fetch()
            if len(signatures) > MAX_SIGNATURES:
                raise SignatureRejected(f"it has more than {MAX_SIGNATURES} signatures")
            self._signatures = signatures
        return self._signatures

    def _check_signed_by(self, requirement: SignedBy) -> None:
        from usercontainerd.trust.signatures import SimpleSignature

        signatures = [each for each in self._get_signatures() if isinstance(each, SimpleSignature)]
        if not signatures:
            raise SignatureRejected("a GPG signature is required, but there is none")
        from usercontainerd.trust.gpg import Keyring, find_gpg
        from usercontainerd.trust.payload import SIMPLE, check_claim

        program = find_gpg(self._tools.search_path)
        with Keyring(requirement.keys.read(), program=program, directory=self._tools.directory) as keyring:

            def verify(signature: SimpleSignature) -> None:
                payload = keyring.verify(signature.message)
                check_claim(payload, SIMPLE, self._manifest, self._image.reference, requirement.identity)

            _check_any(signatures, verify)

    def _check_sigstore_signed(self, requirement: SigstoreSigned) -> None:
        from usercontainerd.trust.signatures import COSIGN_PAYLOAD, SigstoreSignature

        signatures = [
            each
            for each in self._get_signatures()
            if isinstance(each, SigstoreSignature) and each.media_type == COSIGN_PAYLOAD
        ]
        if not signatures:
            raise SignatureRejected(
                "a sigstore signature is required, but there is none (they are looked for only where registries.d "
                "says use-sigstore-attachments: true)"
            )
        from usercontainerd.trust.payload import COSIGN, check_claim
        from usercontainerd.trust.sigstore import load_keys, verify_sigstore

        keys = load_keys(requirement.keys.read())
        if not keys:
            raise HostError("the policy names no key")

        def verify(signature: SigstoreSignature) -> None:
            payload = verify_sigstore(signature, keys)
            check_claim(payload, COSIGN, self._manifest, self._image.reference, requirement.identity)

        _check_any(signatures, verify)


def _check_any(signatures: Sequence[AnySignature], verify: Callable[[AnySignature], None]) -> None:
    """Return if ``verify`` finds one of them good. Raises ``SignatureRejected`` with the reasons."""
    reasons = []
    for signature in signatures:
        try:
            verify(signature)
        except SignatureRejected as error:
            reasons.append(error.reason)
        else:
            return
    if len(reasons) == 1:
        raise SignatureRejected(f"its signature does not count: {reasons[0]}")
    shown = "; ".join(dict.fromkeys(reasons[:MAX_REASONS]))
    raise SignatureRejected(f"none of its {len(reasons)} signatures counts: {shown}")
