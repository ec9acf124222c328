"""Sigstore signatures made by hand with openssl, and attached to an image as cosign does it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from tests.support.fakeregistry import OCI_CONFIGURATION, OCI_MANIFEST, digest_of
from tests.support.signing import run

PAYLOAD_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
ANNOTATION = "dev.cosignproject.cosign/signature"
COSIGN = "cosign container image signature"
_PARAMETERS = {
    "p256": ("EC", "-pkeyopt", "ec_paramgen_curve:P-256"),
    "p384": ("EC", "-pkeyopt", "ec_paramgen_curve:P-384"),
    "rsa": ("RSA", "-pkeyopt", "rsa_keygen_bits:2048"),
    "ed25519": ("ED25519",),
}


def make_keys(kind: str, directory: Path, name: str = "") -> tuple[str, str]:
    """The files of a private and a public key."""
    private, public = str(directory / f"{name or kind}.private"), str(directory / f"{name or kind}.pub")
    run("openssl", "genpkey", "-out", private, "-algorithm", *_PARAMETERS[kind])
    run("openssl", "pkey", "-in", private, "-pubout", "-out", public)
    return private, public


def sign_with(private: str, payload: bytes, directory: Path) -> str:
    """A signature in Base64."""
    path = directory / "to-sign"
    path.write_bytes(payload)
    if "ed25519" in private:
        data = run("openssl", "pkeyutl", "-sign", "-rawin", "-inkey", private, "-in", str(path))
    else:
        data = run("openssl", "dgst", "-sha256", "-sign", private, str(path))
    return base64.b64encode(data).decode()


def attach(
    repository: str,
    digest: str,
    layers: Sequence[tuple[bytes, Mapping[str, str]]],
    *,
    media_type: str = PAYLOAD_TYPE,
    host: str = "localhost:5000",
) -> None:
    """Push the image that holds the signatures of ``digest``; each layer is a payload with annotations."""
    config = b"{}"
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _push_blob(host, repository, config, OCI_CONFIGURATION),
        "layers": [
            {**_push_blob(host, repository, payload, media_type), "annotations": dict(annotations)}
            for payload, annotations in layers
        ],
    }
    tag = f"{digest.replace(':', '-')}.sig"
    _request(host, "PUT", f"/v2/{repository}/manifests/{tag}", json.dumps(manifest).encode(), OCI_MANIFEST)


def _push_blob(host: str, repository: str, data: bytes, media_type: str) -> dict[str, Any]:
    location = urlsplit(_request(host, "POST", f"/v2/{repository}/blobs/uploads/", b""))
    query = "&".join(filter(None, (location.query, urlencode({"digest": digest_of(data)}))))
    _request(host, "PUT", f"{location.path}?{query}", data, "application/octet-stream")
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


def _request(host: str, method: str, path: str, body: bytes, media_type: str = "") -> str:
    connection = HTTPConnection(host, timeout=60)
    connection.request(method, path, body, {"Content-Type": media_type} if media_type else {})
    response = connection.getresponse()
    text = response.read()
    connection.close()
    assert response.status in (201, 202), text
    return response.getheader("Location") or ""
