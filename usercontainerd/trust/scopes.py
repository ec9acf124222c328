"""Where a policy looks for an image: the scopes of each transport, the most specific first.

As containers-policy.json(5) lists them. The transport's own default (the scope "") and the policy's come after
these.
"""

from __future__ import annotations

import os

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.trust.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.base.typedjson import JsonValue
    from usercontainerd.oci.reference import Reference

PATH_TRANSPORTS = ("dir", "oci", "oci-archive")


class ImageIdentity(Value):
    """An image as policy sees it: ``reference`` is its name in full, None if it has none."""

    __slots__ = FIELDS = ("transport", "scopes", "reference")

    def __init__(self, transport: str, scopes: tuple[str, ...], reference: Reference | None) -> None:
        self.transport = transport
        self.scopes = scopes
        self.reference = reference


def identify_in_registry(reference: Reference) -> ImageIdentity:
    """An image of a registry. With a digest the tag does not matter: the digest says what is meant."""
    if reference.digest is not None:
        reference = reference.with_digest(reference.digest)
    return ImageIdentity("docker", list_reference_scopes(reference), reference)


def identify_in_daemon(reference: Reference | None) -> ImageIdentity:
    """An image of a Docker daemon; one that is known by its ID only has no scopes."""
    return ImageIdentity(
        "docker-daemon", () if reference is None else list_reference_scopes(reference), reference
    )


def identify_in_docker_archive(reference: Reference | None) -> ImageIdentity:
    """An image of an archive as ``docker save`` makes them: the transport's default decides."""
    return ImageIdentity("docker-archive", (), reference)


def identify_by_path(transport: str, path: str | None) -> ImageIdentity:
    """An image in a directory or archive; ``path`` is made absolute and free of symbolic links, None has no scopes."""
    if transport not in PATH_TRANSPORTS:
        raise InvalidArgument(f"{transport} is not a transport of paths")
    scopes = []
    place = "/" if path is None else os.path.realpath(path)
    while place != "/":
        scopes.append(place)
        place = os.path.dirname(place)
    return ImageIdentity(transport, tuple(scopes), None)


def identify_in_storage(
    driver: str, root: str, reference: Reference | None, image_id: str = ""
) -> ImageIdentity:
    """An image of Podman's own store at ``root``; ``image_id`` is given if the image was chosen by it."""
    store = f"[{driver}@{root}]"
    scopes = []
    if image_id:
        scopes.append(f"{store}{reference or ''}@{image_id}")
    if reference is not None:
        scopes.append(f"{store}{reference}")
        if reference.tag is not None and reference.digest is not None:
            scopes.append(f"{store}{reference.name}:{reference.tag}")
        scopes.extend(f"{store}{name}" for name in list_namespaces(reference.name))
    return ImageIdentity("containers-storage", (*scopes, store, f"[{root}]"), reference)


def list_reference_scopes(reference: Reference) -> tuple[str, ...]:
    """The image itself, its repository, namespaces, host, then ``*.`` and each domain of the host."""
    host = reference.registry.partition(":")[0]
    domains = []
    while "." in host:
        host = host.partition(".")[2]
        domains.append(f"*.{host}")
    return (str(reference), *list_namespaces(reference.name), *domains)


def list_namespaces(name: str) -> list[str]:
    """``host/a/b``, ``host/a``, ``host``."""
    names = [name]
    while "/" in name:
        name = name.rpartition("/")[0]
        names.append(name)
    return names


def check_scope(transport: str, scope: str, value: JsonValue) -> None:
    """Raise ``InvalidFormat`` for a scope that could never match: its requirements would silently not apply."""
    if not scope:
        return
    if transport in PATH_TRANSPORTS and (
        not scope.startswith("/") or scope == "/" or os.path.normpath(scope) != scope
    ):
        value.fail(
            f'{scope[:200]!r} is not an absolute path in its simplest form (for all paths use the scope "")'
        )
    if transport in ("docker-archive", "tarball"):
        value.fail(f'the transport {transport} has only the scope ""')
