"""Where a registry may lead us, and what goes along: no network here."""

from __future__ import annotations

import pytest

from usercontainerd.base.errors import RegistryError
from usercontainerd.registry.origins import (
    check_realm,
    find_domain,
    find_origin,
    may_send_password,
    resolve_target,
    resolve_upload,
)

BLOB = "https://registry.example/v2/app/blobs/x"


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://cdn.example/x?sig=a%2Fb", "https://cdn.example/x?sig=a%2Fb"),
        ("/v2/other", "https://registry.example/v2/other"),
        ("y?n=1", "https://registry.example/v2/app/blobs/y?n=1"),
        ("//cdn.example/x", "https://cdn.example/x"),
        ("https://10.0.0.7/x", "https://10.0.0.7/x"),  # a registry at home may have its store there
    ],
)
def test_where_a_redirect_may_lead(location: str, target: str) -> None:
    assert resolve_target(BLOB, location, registry="registry.example") == target


@pytest.mark.parametrize(
    "location",
    [
        "http://cdn.example/x",
        "http://registry.example/x",
        "//user@cdn.example/x",
        "https://user:password@cdn.example/x",
        "file:///etc/passwd",
        "ftp://cdn.example/",
        "javascript:alert(1)",
        "https://[::1/",
        "https://cdn.example:99999999/",
        "https://cdn.example/\r\nX: y",
        "https://cdn.example/ä",
        "https://cdn.example/" + "x" * 20_000,
        "https://localhost/x",
        "https://metadata.localhost/x",
        "https://127.0.0.1:8080/x",
        "https://127.1.2.3/x",
        "https://0.0.0.0/x",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/x",
        "https://[fe80::1%25eth0]/x",
        "https://[::ffff:127.0.0.1]/x",
    ],
)
def test_where_a_redirect_must_not_lead(location: str) -> None:
    with pytest.raises(RegistryError):
        resolve_target(BLOB, location, registry="registry.example")


def test_a_registry_of_this_host_may_lead_to_this_host() -> None:
    target = "http://127.0.0.1:9000/bucket/x"
    assert resolve_target("http://localhost:5000/v2/", target, registry="localhost") == target


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/v2/app/blobs/uploads/1?state=x", "https://registry.example:5000/v2/app/blobs/uploads/1?state=x"),
        ("http://registry.example:5000/u/1", "https://registry.example:5000/u/1"),
        ("http://registry.example/u/1", "https://registry.example:5000/u/1"),
        ("https://upload.example/u/1", "https://upload.example/u/1"),
    ],
)
def test_where_an_upload_goes(location: str, target: str) -> None:
    url = "https://registry.example:5000/v2/app/blobs/uploads/"
    assert resolve_upload(url, location, registry="registry.example") == target


def test_an_upload_never_goes_without_tls() -> None:
    with pytest.raises(RegistryError, match="without TLS"):
        resolve_upload(BLOB, "http://upload.example/u/1", registry="registry.example")


@pytest.mark.parametrize(
    ("registry", "realm", "allowed"),
    [
        ("https://registry-1.docker.io", "https://auth.docker.io/token", True),
        ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth", True),
        ("https://registry.connect.redhat.com", "https://sso.redhat.com/auth", True),
        ("https://quay.io", "https://quay.io/v2/auth", True),
        ("https://quay.io", "https://evil.io/token", False),
        ("https://quay.io", "https://quay.io.evil.io/token", False),
        ("https://shop.co.uk", "https://evil.co.uk/token", False),
        ("https://registry.shop.co.uk", "https://auth.shop.co.uk/token", True),
        ("https://10.0.0.1", "https://11.0.0.1/token", False),
        ("https://10.0.0.1:5000", "https://10.0.0.1:5001/token", True),
        ("https://registry", "https://auth/token", False),
        ("http://localhost:5000", "http://localhost:5001/token", True),
        ("https://[2001:db8::1]", "https://[2001:db8::2]/token", False),
    ],
)
def test_where_passwords_go(registry: str, realm: str, allowed: bool) -> None:
    check_realm(realm, registry)
    assert may_send_password(realm, registry) is allowed


@pytest.mark.parametrize(
    "realm",
    [
        "http://quay.io/token",
        "https://me:pw@quay.io/token",
        "https://127.0.0.1/token",
        "https://localhost:8443/token",
        "https://169.254.169.254/token",
        "file:///etc/passwd",
        "token",
        "",
        "https://quay.io/\ntoken",
        "https://quay.io/" + "x" * 20_000,
    ],
)
def test_realms_that_are_not_asked(realm: str) -> None:
    with pytest.raises(RegistryError, match="wants a token from"):
        check_realm(realm, "https://quay.io")


def test_a_registry_without_tls_may_not_name_another_host_without_tls() -> None:
    with pytest.raises(RegistryError, match="wants a token from"):
        check_realm("http://other:5000/token", "http://registry:5000")


def test_domains() -> None:
    assert find_domain("a.b.Example.COM.") == "example.com"
    assert find_domain("co.uk") is None
    assert find_domain("localhost") is None
    assert find_domain("10.0.0.1") is None


def test_origin_knows_default_ports() -> None:
    assert find_origin("https://x/") == find_origin("https://X:443/y") == ("https", "x", 443)
