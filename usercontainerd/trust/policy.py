"""policy.json: which images are taken, and which signatures they need (containers-policy.json(5)).

Parsed as strictly as containers/image parses it: a key that is unknown, twice there, null or of another type makes
the whole file invalid, and with an invalid file no image is taken. Where a file asks for something that is valid
but not implemented here, that is remembered, and images to which it applies are refused.
"""

from __future__ import annotations

import os

from usercontainerd.base.errors import HostError, PullDenied
from usercontainerd.base.typedjson import JsonValue, parse_json
from usercontainerd.kernel.smallfiles import read_small_file
from usercontainerd.trust.identity import DEFAULT_RULE, parse_identity_rule
from usercontainerd.trust.scopes import check_scope
from usercontainerd.trust.strictjson import read_base64, read_members, read_text
from usercontainerd.trust.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from usercontainerd.trust.identity import IdentityRule
    from usercontainerd.trust.scopes import ImageIdentity

MAX_POLICY = 4 * 1024 * 1024
MAX_KEYS = 1024 * 1024  # bytes of one key file
SYSTEM_DIRECTORIES = ("/etc/containers", "/usr/share/containers")
SIGSTORE_UNSUPPORTED = (
    "fulcio",
    "pki",
    "rekorPublicKeyPath",
    "rekorPublicKeyPaths",
    "rekorPublicKeyData",
    "rekorPublicKeyDatas",
)


class Keys(Value):
    """Public keys: files that are read when they are needed, or the keys themselves."""

    __slots__ = FIELDS = ("paths", "data")

    def __init__(self, paths: tuple[str, ...] = (), data: tuple[bytes, ...] = ()) -> None:
        self.paths = paths
        self.data = data

    def read(self) -> tuple[bytes, ...]:
        """Return the content of each. Raises ``HostError`` naming the file that cannot be read."""
        return self.data + tuple(_read_file(path) for path in self.paths)


class Requirement(Value):
    """One thing that an image has to meet; ``where`` is its place in the file."""

    __slots__ = ("where",)
    FIELDS: tuple[str, ...] = ("where",)

    def __init__(self, where: str) -> None:
        self.where = where


class AcceptAnything(Requirement):
    """``insecureAcceptAnything``."""

    __slots__ = ()


class Reject(Requirement):
    """``reject``."""

    __slots__ = ()


class Signed(Requirement):
    """A signature of one of the keys, over a claim that fits ``identity``."""

    __slots__ = ("identity", "keys")
    FIELDS = ("where", "keys", "identity")

    def __init__(self, where: str, keys: Keys, identity: IdentityRule) -> None:
        super().__init__(where)
        self.keys = keys
        self.identity = identity


class SignedBy(Signed):
    """``signedBy``: made with GPG."""

    __slots__ = ()


class SigstoreSigned(Signed):
    """``sigstoreSigned`` with public keys."""

    __slots__ = ()


class Unsupported(Requirement):
    """What is valid but cannot be checked here, so that no image can meet it."""

    __slots__ = ("what",)
    FIELDS = ("where", "what")

    def __init__(self, where: str, what: str) -> None:
        super().__init__(where)
        self.what = what


class Policy:
    """A parsed file. ``transports`` maps a transport's name to its scopes."""

    __slots__ = ("default", "path", "transports")

    def __init__(
        self,
        default: tuple[Requirement, ...],
        transports: Mapping[str, Mapping[str, tuple[Requirement, ...]]],
        path: str,
    ) -> None:
        self.default = default
        self.transports = transports
        self.path = path

    def list_requirements(self) -> tuple[Requirement, ...]:
        """Return all that it wants anywhere."""
        lists = [self.default, *(one for scopes in self.transports.values() for one in scopes.values())]
        return tuple(requirement for one in lists for requirement in one)

    def find_requirements(self, image: ImageIdentity) -> tuple[Requirement, ...]:
        """Return what holds for ``image``: the most specific scope alone counts."""
        scopes = self.transports.get(image.transport, {})
        for scope in (*image.scopes, ""):
            if scope in scopes:
                return scopes[scope]
        return self.default


def policy_files(home_configs: Sequence[str]) -> list[str]:
    """Where the policy may lie, strongest first; ``home_configs`` are directories such as ``~/.config``."""
    users = [f"{directory}/containers" for directory in home_configs]
    return [f"{directory}/policy.json" for directory in (*users, *SYSTEM_DIRECTORIES)]


def read_policy(files: Sequence[str]) -> Policy:
    """Read the first file that exists.

    Raises ``PullDenied`` if there is none: what nobody has allowed is not allowed; ``InvalidFormat``,
    ``HostError`` if it cannot be read: a file that says no must not be passed over.
    """
    for path in files:
        if _is_there(path):
            return parse_policy(read_policy_file(path), path)
    raise PullDenied(
        "there is no signature policy, so no image can be taken",
        where=" or ".join(files[-2:]) if len(files) > 2 else " or ".join(files),
        hint="install containers-common (Debian: golang-github-containers-common), or write "
        f'{files[0]}: {{"default": [{{"type": "insecureAcceptAnything"}}]}}',
    )


def read_policy_file(path: str) -> bytes:
    """Return the bytes of a policy. Raises ``HostError``."""
    return _read_file(path, MAX_POLICY)


def _is_there(path: str) -> bool:
    """True also for what cannot be looked at: it may say no."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise HostError(f"cannot be looked at: {error.strerror}", where=path) from error
    return True


def _read_file(path: str, limit: int = MAX_KEYS) -> bytes:
    data = read_small_file(path, limit)
    if data is None:
        raise HostError("cannot be read: there is no such file", where=path)
    return data


def parse_policy(data: bytes, path: str) -> Policy:
    """Parse the text of a policy.json. Raises ``InvalidFormat``."""
    document = parse_json(data, "policy", limit=MAX_POLICY, source=path)
    members = read_members(document, required=("default",), optional=("transports",))
    transports: dict[str, dict[str, tuple[Requirement, ...]]] = {}
    if "transports" in members:
        for transport, scopes in _items(members["transports"]):
            transports[transport] = {}
            for scope, requirements in _items(scopes):
                check_scope(transport, scope, scopes)
                transports[transport][scope] = parse_requirements(requirements)
    return Policy(parse_requirements(members["default"]), transports, path)


def _items(value: JsonValue) -> list[tuple[str, JsonValue]]:
    if value.is_null:
        value.fail("must not be null")
    return list(value.items())


def parse_requirements(value: JsonValue) -> tuple[Requirement, ...]:
    """Read a list of requirements. Raises ``InvalidFormat``; an empty list is an error, for it would accept all."""
    if value.is_null:
        value.fail("must not be null")
    requirements = tuple(_parse_requirement(element) for element in value.elements(limit=1000))
    if not requirements:
        value.fail('must not be empty (to accept everything say {"type": "insecureAcceptAnything"})')
    return requirements


def _parse_requirement(value: JsonValue) -> Requirement:
    kind = value.get("type").text()
    if kind == "insecureAcceptAnything":
        read_members(value, required=("type",))
        return AcceptAnything(value.path)
    if kind == "reject":
        read_members(value, required=("type",))
        return Reject(value.path)
    if kind == "signedBy":
        return _parse_signed_by(value)
    if kind == "sigstoreSigned":
        return _parse_sigstore_signed(value)
    if kind != "signedBaseLayer":
        value.get("type").fail(f"{kind[:80]!r} is no kind of requirement that is known")
    parse_identity_rule(read_members(value, required=("type", "baseLayerIdentity"))["baseLayerIdentity"])
    return Unsupported(value.path, "signedBaseLayer")


def _parse_signed_by(value: JsonValue) -> Requirement:
    sources = ("keyPath", "keyPaths", "keyData")
    members = read_members(value, required=("type", "keyType"), optional=(*sources, "signedIdentity"))
    kind = members["keyType"].text()
    if kind not in ("GPGKeys", "signedByGPGKeys", "X509Certificates", "signedByX509CAs"):
        members["keyType"].fail(f"{kind[:80]!r} is no kind of key that is known")
    keys, identity = _parse_keys(value, members, sources), _parse_identity(members)
    if kind != "GPGKeys":
        return Unsupported(value.path, f"keyType {kind}")
    return SignedBy(value.path, keys, identity)


def _parse_sigstore_signed(value: JsonValue) -> Requirement:
    sources = ("keyPath", "keyPaths", "keyData", "keyDatas")
    members = read_members(
        value, required=("type",), optional=(*sources, *SIGSTORE_UNSUPPORTED, "signedIdentity")
    )
    identity = _parse_identity(members)
    others = [name for name in SIGSTORE_UNSUPPORTED if name in members]
    if "fulcio" in members or "pki" in members:
        if len([name for name in (*sources, "fulcio", "pki") if name in members]) != 1:
            value.fail(f"exactly one of {', '.join(sources)}, fulcio and pki must be there")
    else:
        keys = _parse_keys(value, members, sources)
        if not others:
            return SigstoreSigned(value.path, keys, identity)
    return Unsupported(value.path, f"sigstoreSigned with {', '.join(others)}")


def _parse_keys(value: JsonValue, members: Mapping[str, JsonValue], sources: Sequence[str]) -> Keys:
    given = [name for name in sources if name in members]
    if len(given) != 1:
        value.fail(f"exactly one of {', '.join(sources)} must be there")
    source = members[given[0]]
    if given[0] == "keyPath":
        return Keys(paths=(read_text(source),))
    if given[0] == "keyData":
        return Keys(data=(read_base64(source),))
    elements = list(source.elements(limit=1000))
    if not elements:
        source.fail("must not be empty")
    if given[0] == "keyPaths":
        return Keys(paths=tuple(read_text(element) for element in elements))
    return Keys(data=tuple(read_base64(element) for element in elements))


def _parse_identity(members: Mapping[str, JsonValue]) -> IdentityRule:
    return parse_identity_rule(members["signedIdentity"]) if "signedIdentity" in members else DEFAULT_RULE
