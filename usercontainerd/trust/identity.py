"""What a signature must claim that its image is: the ``signedIdentity`` of containers-policy.json(5).

References are compared in their full form, as docker expands it: ``busybox:1`` is ``docker.io/library/busybox:1``.
"""

from __future__ import annotations

from usercontainerd.base.errors import InvalidReference
from usercontainerd.oci.reference import DOCKER_HUB, Reference, parse_reference
from usercontainerd.trust.strictjson import read_members, read_text
from usercontainerd.trust.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from usercontainerd.base.typedjson import JsonValue

    class IdentityRule(Protocol):
        """Decides whether the reference in a signature fits the image that is asked for."""

        def accepts(self, image: Reference | None, signed: Reference) -> bool:
            """``image`` is None for an image that has no name, as in a plain directory."""


class MatchExact(Value):
    """The very reference that was asked for, tag or digest included."""

    __slots__ = ()

    def accepts(self, image: Reference | None, signed: Reference) -> bool:
        """See ``IdentityRule``."""
        return image is not None and not is_bare(image) and not is_bare(signed) and image == signed


class MatchRepoDigestOrExact(Value):
    """By tag: the very reference. By digest, which was checked: the repository, with whatever tag was signed."""

    __slots__ = ()

    def accepts(self, image: Reference | None, signed: Reference) -> bool:
        """See ``IdentityRule``."""
        if image is None or is_bare(image) or is_bare(signed):
            return False
        if image.tag is not None:
            return image == signed
        return image.name == signed.name


class MatchRepository(Value):
    """The repository only: another tag of it will do."""

    __slots__ = ()

    def accepts(self, image: Reference | None, signed: Reference) -> bool:
        """See ``IdentityRule``."""
        return image is not None and image.name == signed.name


class ExactReference(Value):
    """A reference that the policy names."""

    __slots__ = FIELDS = ("reference",)

    def __init__(self, reference: Reference) -> None:
        self.reference = reference

    def accepts(self, image: Reference | None, signed: Reference) -> bool:
        """See ``IdentityRule``."""
        return not is_bare(signed) and self.reference == signed


class ExactRepository(Value):
    """A repository that the policy names."""

    __slots__ = FIELDS = ("repository",)

    def __init__(self, repository: Reference) -> None:
        self.repository = repository

    def accepts(self, image: Reference | None, signed: Reference) -> bool:
        """See ``IdentityRule``."""
        return self.repository.name == signed.name


class RemapIdentity(Value):
    """As ``MatchRepoDigestOrExact``, after ``prefix`` of the image's name was replaced: for mirrors."""

    __slots__ = FIELDS = ("prefix", "signed_prefix")

    def __init__(self, prefix: str, signed_prefix: str) -> None:
        self.prefix = prefix
        self.signed_prefix = signed_prefix

    def accepts(self, image: Reference | None, signed: Reference) -> bool:
        """See ``IdentityRule``."""
        if image is None:
            return False
        if image.name == self.prefix or image.name.startswith(f"{self.prefix}/"):
            text = f"{self.signed_prefix}{str(image)[len(self.prefix) :]}"
            try:
                image = parse_full_reference(text)
            except InvalidReference:
                return False
            if str(image) != text:
                return False
        return MatchRepoDigestOrExact().accepts(image, signed)


DEFAULT_RULE = MatchRepoDigestOrExact()
_PLAIN: dict[str, IdentityRule] = {
    "matchExact": MatchExact(),
    "matchRepoDigestOrExact": DEFAULT_RULE,
    "matchRepository": MatchRepository(),
}


def is_bare(reference: Reference) -> bool:
    """True if it has neither tag nor digest: no one image is meant."""
    return reference.tag is None and reference.digest is None


def parse_full_reference(text: str) -> Reference:
    """Parse a reference; a short one is Docker Hub's, as docker has it. Raises ``InvalidReference``."""
    reference = parse_reference(text)
    return reference.with_registry(DOCKER_HUB) if reference.is_short else reference


def parse_identity_rule(value: JsonValue) -> IdentityRule:
    """Read a ``signedIdentity``. Raises ``InvalidFormat``."""
    kind = value.get("type").text()
    if kind in _PLAIN:
        read_members(value, required=("type",))
        return _PLAIN[kind]
    if kind == "exactReference":
        members = read_members(value, required=("type", "dockerReference"))
        reference = _read_reference(members["dockerReference"])
        if is_bare(reference):
            members["dockerReference"].fail("has neither a tag nor a digest")
        return ExactReference(reference)
    if kind == "exactRepository":
        members = read_members(value, required=("type", "dockerRepository"))
        return ExactRepository(_read_reference(members["dockerRepository"]))
    if kind != "remapIdentity":
        value.get("type").fail(f"{kind[:80]!r} is no kind of identity that is known")
    members = read_members(value, required=("type", "prefix", "signedPrefix"))
    return RemapIdentity(_read_prefix(members["prefix"]), _read_prefix(members["signedPrefix"]))


def _read_reference(value: JsonValue) -> Reference:
    try:
        return parse_full_reference(read_text(value))
    except InvalidReference as error:
        value.fail(error.what)


def _read_prefix(value: JsonValue) -> str:
    """A host, a namespace or a repository in its full form, without tag and digest."""
    prefix = read_text(value)
    try:
        # A host alone is no reference: a repository behind it makes it one.
        reference = parse_reference(f"{prefix}/x/x")
    except InvalidReference as error:
        value.fail(error.what)
    if reference.is_short or str(reference) != f"{prefix}/x/x":
        value.fail(f"{prefix!r} is not a host, namespace or repository in its full form")
    return prefix
