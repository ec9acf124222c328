"""What a signature says: parsed strictly, and held against the image that is asked for."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usercontainerd.base.errors import InvalidFormat
from usercontainerd.oci.digest import compute_digest
from usercontainerd.oci.reference import parse_reference
from usercontainerd.trust.identity import MatchRepoDigestOrExact
from usercontainerd.trust.payload import COSIGN, SIMPLE, Claim, check_claim, parse_claim
from usercontainerd.trust.rejection import SignatureRejected
from usercontainerd.trust.signatures import (
    MAX_SIGNATURE,
    SigstoreSignature,
    SimpleSignature,
    parse_signature,
)

MANIFEST = b"{}"
DIGEST = compute_digest(MANIFEST)
IMAGE = parse_reference("a.example/b:1")
VALID: dict[str, Any] = {
    "critical": {
        "type": SIMPLE,
        "image": {"docker-manifest-digest": DIGEST},
        "identity": {"docker-reference": "a.example/b:1"},
    },
    "optional": {"creator": "x", "timestamp": 1, "anything": [None]},
}


def build(change: Callable[[Any], object] = lambda _: None) -> bytes:
    document = copy.deepcopy(VALID)
    change(document)
    return json.dumps(document).encode()


def check(data: bytes, kind: str = SIMPLE) -> Claim:
    return check_claim(data, kind, MANIFEST, IMAGE, MatchRepoDigestOrExact())


def test_a_claim_that_fits() -> None:
    assert check(build()) == Claim(DIGEST, "a.example/b:1")
    assert check(build(lambda d: d.update(optional={})))
    assert check(build(lambda d: d["optional"].update(timestamp=1.0)))
    longer = compute_digest(MANIFEST, "sha512")
    assert check(build(lambda d: d["critical"]["image"].update({"docker-manifest-digest": longer})))
    cosign = build(lambda d: (d["critical"].update(type=COSIGN), d.update(optional=None)))
    assert check(cosign, COSIGN)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(more=1),
        lambda d: d.pop("optional"),
        lambda d: d.update(optional=None),
        lambda d: d.update(optional=[]),
        lambda d: d["optional"].update(creator=1),
        lambda d: d["optional"].update(timestamp=1.5),
        lambda d: d["optional"].update(timestamp="1"),
        lambda d: d["optional"].update(timestamp=True),
        lambda d: d.pop("critical"),
        lambda d: d.update(critical=None),
        lambda d: d.update(critical=[]),
        lambda d: d["critical"].update(more=1),
        lambda d: d["critical"].pop("type"),
        lambda d: d["critical"].update(type=COSIGN),
        lambda d: d["critical"].update(type=1),
        lambda d: d["critical"].pop("image"),
        lambda d: d["critical"]["image"].update(more=1),
        lambda d: d["critical"].update(image={}),
        lambda d: d["critical"].update(image=DIGEST),
        lambda d: d["critical"]["image"].update({"docker-manifest-digest": 1}),
        lambda d: d["critical"]["image"].update({"docker-manifest-digest": None}),
        lambda d: d["critical"].pop("identity"),
        lambda d: d["critical"]["identity"].update(more=1),
        lambda d: d["critical"].update(identity={}),
        lambda d: d["critical"]["identity"].update({"docker-reference": ["a.example/b:1"]}),
    ],
)
def test_what_is_not_understood_is_worthless(change: Callable[[Any], object]) -> None:
    with pytest.raises(InvalidFormat):
        parse_claim(build(change), SIMPLE)
    with pytest.raises(SignatureRejected, match="cannot be understood"):
        check(build(change))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"\xff",
        build() + b"{}",
        build().replace(b'"critical"', b'"critical": {}, "critical"'),
        build().replace(b'"docker-reference"', b'"docker-reference": "x/y:1", "docker-reference"'),
        b'{"critical": ' + b"[" * 1000 + b"]" * 1000 + b', "optional": {}}',
    ],
)
def test_what_is_no_such_document(data: bytes) -> None:
    with pytest.raises(SignatureRejected, match="cannot be understood"):
        check(data)


@pytest.mark.parametrize(
    ("digest", "reference", "reason"),
    [
        (compute_digest(b"other"), "a.example/b:1", "another image"),
        (DIGEST.upper(), "a.example/b:1", "not a digest"),
        (f"md5:{'0' * 32}", "a.example/b:1", "not a digest"),
        ("", "a.example/b:1", "not a digest"),
        (DIGEST, "a.example/b:2", "does not accept"),
        (DIGEST, "a.example/b", "does not accept"),
        (DIGEST, "b:1", "does not accept"),
        (DIGEST, "A.example/../b:1", "names no image"),
        (DIGEST, "", "names no image"),
    ],
)
def test_claims_about_something_else(digest: str, reference: str, reason: str) -> None:
    def change(document: Any) -> None:
        document["critical"]["image"]["docker-manifest-digest"] = digest
        document["critical"]["identity"]["docker-reference"] = reference

    with pytest.raises(SignatureRejected, match=reason):
        check(build(change))


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_cleanly(data: bytes) -> None:
    with pytest.raises(SignatureRejected):
        check(data)
    try:
        parse_signature(data, "here")
    except InvalidFormat:
        pass


def test_kinds_of_files() -> None:
    for first in (0xA0, 0xA3, 0xC8, 0x90, 0xC4, 0x88, 0xC2):
        message = bytes((first, 1, 2))
        assert parse_signature(message, "here") == SimpleSignature(message)
    assert parse_signature(b"\0simple-signing\nabc", "here") == SimpleSignature(b"abc")
    stored = {"mimeType": "m", "payload": "eA==", "annotations": {"a": "b"}}
    parsed = parse_signature(b"\0sigstore-json\n" + json.dumps(stored).encode(), "here")
    assert parsed == SigstoreSignature("m", b"x", (("a", "b"),))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"-----BEGIN PGP SIGNED MESSAGE-----\n",
        b"-----BEGIN PGP MESSAGE-----\n",
        b"{}",
        b"\xcb\x01",
        b"\0",
        b"\0simple-signing",
        b"\0future\nx",
        b"\0sigstore-json\n",
        b"\0sigstore-json\n{}",
        b'\0sigstore-json\n{"mimeType": "m", "payload": "%"}',
        b'\0sigstore-json\n{"mimeType": "m", "payload": "eA==", "more": 1}',
        b"\xa0" * (MAX_SIGNATURE + 1),
    ],
)
def test_files_that_are_no_signatures(data: bytes) -> None:
    with pytest.raises(InvalidFormat):
        parse_signature(data, "here")
