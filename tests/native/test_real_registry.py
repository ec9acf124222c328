"""The registry with TLS and passwords that other tests use: it is what it says, to curl's eyes and to skopeo's."""

from __future__ import annotations

import ssl
import urllib.error
from pathlib import Path

import pytest

from tests.support.containers import run
from tests.support.realregistry import PASSWORD, USER, RealRegistry


def test_users_only(secure_registry: RealRegistry) -> None:
    status, headers, _ = secure_registry.ask("/v2/")
    assert status == 401
    assert headers["www-authenticate"].startswith("Basic realm=")
    assert secure_registry.ask("/v2/", user=USER)[0] == 200


def test_skopeo_pushes_into_it(secure_registry: RealRegistry) -> None:
    certificates = str(secure_registry.certificates)
    credentials = f"{USER}:{PASSWORD}"
    copy = ["skopeo", "copy", "--quiet", "--src-tls-verify=false", "--dest-cert-dir", certificates]
    run(
        *copy,
        "--dest-creds",
        credentials,
        "docker://localhost:5000/busybox",
        f"docker://{secure_registry.host}/b",
    )
    assert secure_registry.ask("/v2/b/tags/list", user=USER)[2].strip() == b'{"name":"b","tags":["latest"]}'


def test_client_certificates(tmp_path: Path) -> None:
    with RealRegistry(tmp_path, client_certificates=True) as registry:
        assert registry.ask("/v2/")[0] == 200
        assert registry.client is not None
        registry.client = None
        with pytest.raises((urllib.error.URLError, ssl.SSLError, ConnectionError)):
            registry.ask("/v2/")


def test_without_tls(tmp_path: Path) -> None:
    with RealRegistry(tmp_path, tls=False) as registry:
        assert registry.ca is None
        assert registry.ask("/v2/_catalog")[2].strip() == b'{"repositories":[]}'
