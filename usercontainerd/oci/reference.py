"""Image references: the grammar of the distribution project (github.com/distribution/reference).

    reference := [registry "/"] path [":" tag] ["@" digest]

A first component is a registry if it has a dot or a colon or is ``localhost``, as docker and podman decide;
otherwise the name is short and ``registry`` is empty: which ones to try is for their configuration to say.
"""

from __future__ import annotations

import re

from usercontainerd.base.errors import InvalidReference
from usercontainerd.oci.digest import Digest, is_digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

MAX_PATH = 255  # distribution: RepositoryNameTotalLengthMax
MAX_REGISTRY = 255
DEFAULT_TAG = "latest"
DOCKER_HUB = "docker.io"
HUB_HOSTS = ("index.docker.io", "registry-1.docker.io")  # Docker Hub's other names

_HOST = re.compile(
    r"(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*"
    r"|\[[a-fA-F0-9:]+\])(?::(?P<port>[0-9]{1,5}))?\Z",
    re.ASCII,
)
_PATH = re.compile(
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*\Z", re.ASCII
)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z", re.ASCII)
_HEX64 = re.compile(r"[a-f0-9]{64}\Z", re.ASCII)


class Reference:
    """A parsed reference; ``registry`` is "" for a short name, ``tag`` and ``digest`` None if not given."""

    __slots__ = ("digest", "registry", "repository", "tag")

    def __init__(
        self, registry: str, repository: str, tag: str | None = None, digest: Digest | None = None
    ) -> None:
        self.registry = registry
        self.repository = repository
        self.tag = tag
        self.digest = digest

    def _key(self) -> tuple[str, str, str | None, str | None]:
        return (self.registry, self.repository, self.tag, self.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"Reference({str(self)!r})"

    def __str__(self) -> str:
        """The reference as text; parsing it gives an equal one."""
        tag = "" if self.tag is None else f":{self.tag}"
        digest = "" if self.digest is None else f"@{self.digest}"
        return f"{self.name}{tag}{digest}"

    @property
    def name(self) -> str:
        """``registry/repository``, without tag and digest."""
        return f"{self.registry}/{self.repository}" if self.registry else self.repository

    @property
    def is_short(self) -> bool:
        """True if no registry is named."""
        return not self.registry

    @property
    def familiar(self) -> str:
        """As docker shows it: Docker Hub's registry and its ``library/`` are left out."""
        text = str(self)
        if self.registry == DOCKER_HUB:
            text = text.removeprefix(f"{DOCKER_HUB}/")
            if self.repository.count("/") == 1:
                text = text.removeprefix("library/")
        return text

    @property
    def wanted(self) -> str:
        """What to ask a registry for: the digest, else the tag, else ``latest``."""
        return self.digest or self.tag or DEFAULT_TAG

    def with_registry(self, registry: str) -> Reference:
        """The same in ``registry``; a one-word name of Docker Hub lies in ``library/``."""
        repository = self.repository
        if registry in HUB_HOSTS:
            registry = DOCKER_HUB
        # A search entry may name a namespace: "quay.io/myteam".
        registry, _, namespace = registry.partition("/")
        if namespace:
            repository = f"{namespace}/{repository}"
        if registry == DOCKER_HUB and "/" not in repository:
            repository = f"library/{repository}"
        return Reference(registry, repository, self.tag, self.digest)

    def with_default_tag(self) -> Reference:
        """The same with ``latest`` if it has neither tag nor digest."""
        if self.tag is None and self.digest is None:
            return Reference(self.registry, self.repository, DEFAULT_TAG)
        return self

    def with_digest(self, digest: Digest) -> Reference:
        """The same repository at ``digest``, without tag."""
        return Reference(self.registry, self.repository, None, digest)


def is_registry(component: str) -> bool:
    """Tell whether the first component of a name means a registry, as docker and podman decide it."""
    return "." in component or ":" in component or component == "localhost"


def parse_reference(text: str) -> Reference:
    """Parse a reference. Raises ``InvalidReference`` saying which part is wrong."""
    if not text:
        raise InvalidReference("the image reference is empty")
    if len(text) > 1024:
        raise InvalidReference("the image reference is too long", hint="1024 characters at most")
    name, at, digest = text.partition("@")
    if at and not is_digest(digest):
        _refuse(text, f"{digest!r} is not a digest", "sha256: and 64 lower-case hexadecimal digits")
    slash = name.rfind("/")
    colon = name.find(":", slash + 1)
    tag: str | None = None
    if colon >= 0:
        name, tag = name[:colon], name[colon + 1 :]
        if not _TAG.match(tag):
            _refuse(
                text,
                f"{tag!r} is not a tag",
                "letters, digits, _ . -, at most 128, not beginning with . or -",
            )
    if not at and tag is None and _HEX64.match(name):
        _refuse(text, "64 hexadecimal digits are an image ID, not a name")
    first, slash_sign, rest = name.partition("/")
    if slash_sign and (is_registry(first) or first != first.lower()):
        registry, path = _check_registry(first, text), rest
    else:
        registry, path = "", name
    _check_path(path, text)
    reference = Reference(registry, path, tag, Digest(digest) if at else None)
    return reference.with_registry(registry) if registry else reference


def parse_registry(text: str) -> str:
    """Check a registry's ``host[:port]``; return it, Docker Hub's under its usual name. Raises ``InvalidReference``."""
    registry = _check_registry(text, text)
    return DOCKER_HUB if registry in HUB_HOSTS else registry


def _check_registry(registry: str, text: str) -> str:
    match = _HOST.match(registry)
    if match is None or len(registry) > MAX_REGISTRY:
        _refuse(text, f"{registry!r} is not a registry's host name")
    port = match["port"]
    if port is not None and not 0 < int(port) < 65536:
        _refuse(text, f"{port} is not a port")
    return registry


def _check_path(path: str, text: str) -> None:
    if not path:
        _refuse(text, "the repository's name is missing")
    if len(path) > MAX_PATH:
        _refuse(text, f"the repository's name is longer than {MAX_PATH} characters")
    if not _PATH.match(path):
        if path != path.lower():
            _refuse(text, "the repository's name must be in lower case")
        _refuse(
            text,
            f"{path!r} is not a repository's name",
            "lower-case letters and digits, with . _ __ - or / between them",
        )


def _refuse(text: str, what: str, hint: str | None = None) -> NoReturn:
    raise InvalidReference(f"invalid image reference {text!r}: {what}", hint=hint)
