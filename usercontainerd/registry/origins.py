"""Whom a registry may send us to, and what goes along: the rules for redirects, token realms and upload locations.

A registry is not trusted to lead us anywhere. In short:

- Only http and https, never with a user name in the URL, and never from https to http.
- Never to this very host (loopback, link-local addresses) unless the registry is there itself.
- Credentials go to the registry's own origin (scheme, host, port) and to its token service. The latter gets
  the password or refresh token only on the registry's host or another of the same registrable domain
  (registry-1.docker.io and auth.docker.io; registry.gitlab.com and gitlab.com). Elsewhere a token is asked for
  without them: any registry could name any realm, and would have the user's password sent there.

containers/image and Docker send a password to whatever realm the registry names.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urljoin, urlsplit, urlunsplit

from usercontainerd.base.errors import RegistryError

MAX_URL = 16 * 1024  # presigned URLs of object stores have up to 4 KiB
_PORTS = {"http": 80, "https": 443}
# Below a country's domain these are not a name that somebody has: example.co.uk, example.com.au.
_SECOND_LEVEL = frozenset(("ac", "co", "com", "edu", "gob", "gov", "mil", "ne", "net", "nom", "or", "org"))


def find_origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of a URL. Raises ``RegistryError`` if it is not one of http or https."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise RegistryError(f"not a usable URL: {error}", where=url[:200]) from None
    if parts.scheme not in _PORTS or not host:
        raise RegistryError("not a URL of http or https", where=url[:200])
    return parts.scheme, host, port or _PORTS[parts.scheme]


def resolve_target(url: str, location: str, *, registry: str) -> str:
    """Return where the ``Location`` or ``Link`` of the answer from ``url`` leads, if that is allowed.

    ``registry`` is the host name of the registry that all began with. Raises ``RegistryError``.
    """
    shown = repr(location[:200])
    if len(location) > MAX_URL or not location.isascii() or not location.isprintable() or " " in location:
        raise RegistryError(f"the registry leads to {shown}, which is not a URL", where=url)
    try:
        target = urljoin(url, location)
        parts = urlsplit(target)
        origin = find_origin(target)
    except (ValueError, RegistryError):
        raise RegistryError(f"the registry leads to {shown}, which is not allowed", where=url) from None
    if parts.username is not None or parts.password is not None:
        raise RegistryError("the registry leads to a URL with a user name", where=url)
    if origin[0] == "http" and find_origin(url)[0] != "http":
        raise RegistryError(f"the registry leads from https to {shown}, which is without TLS", where=url)
    if is_local(origin[1]) and not is_local(registry):
        raise RegistryError(f"the registry leads to {shown}, which is this very host", where=url)
    return target


def resolve_upload(url: str, location: str, *, registry: str) -> str:
    """``resolve_target`` for the ``Location`` of an upload.

    Registries behind a proxy that speaks TLS for them often say ``http:`` for themselves: they get https.
    """
    try:
        parts = urlsplit(location)
        own = urlsplit(url)
        same = parts.hostname == own.hostname and parts.port in (None, own.port)
    except ValueError:
        same = False
    if same and parts.scheme == "http" and own.scheme == "https":
        location = urlunsplit(("https", own.netloc, *parts[2:]))
    return resolve_target(url, location, registry=registry)


def is_local(host: str) -> bool:
    """Tell whether a host name or address literal means this host, or a service of its link."""
    host = host.rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    return address.is_loopback or address.is_link_local or address.is_unspecified


def check_realm(realm: str, base: str) -> None:
    """Raise ``RegistryError`` unless a token may be asked for at ``realm`` on behalf of the registry at ``base``."""
    own_scheme, own_host, _ = find_origin(base)
    try:
        parts = urlsplit(realm)
        scheme, host, _ = find_origin(realm)
        fine = parts.username is None and len(realm) <= MAX_URL and realm.isascii() and realm.isprintable()
    except (ValueError, RegistryError):
        fine = False
    if fine and scheme == "http":
        # Without TLS only where the registry itself is configured to be without.
        fine = own_scheme == "http" and host == own_host
    if fine and is_local(host):
        fine = is_local(own_host)
    if not fine:
        raise RegistryError(
            f"the registry wants a token from {realm[:200]!r}, which is not allowed", where=base
        )


def may_send_password(realm: str, base: str) -> bool:
    """Tell whether a password for the registry at ``base`` may go to ``realm`` (which ``check_realm`` allows)."""
    host, own = find_origin(realm)[1], find_origin(base)[1]
    return host == own or (find_domain(host) is not None and find_domain(host) == find_domain(own))


def find_domain(host: str) -> str | None:
    """Return the domain that somebody has registered, as far as its form tells; None for an address."""
    labels = host.rstrip(".").lower().split(".")
    if len(labels) < 2 or ":" in host or labels[-1].isdecimal():
        return None
    count = 3 if len(labels[-1]) == 2 and labels[-2] in _SECOND_LEVEL else 2
    return ".".join(labels[-count:]) if len(labels) >= count else None
