"""GPG signatures as people make them, and what skopeo says to the same policies: both must agree, case by case."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.signing import ACCEPT, APP, LONG_AGO, REJECT, Place, Signing, claim
from usercontainerd.engine.images.local import list_images

Requirements = list[dict[str, Any]]


def signed_by(signing: Signing, *keys: str, **more: Any) -> Requirements:
    """A requirement of a signature by one of the keys."""
    paths = [signing.public_key(key) for key in keys]
    source = {"keyPath": paths[0]} if len(paths) == 1 else {"keyPaths": paths}
    return [{"type": "signedBy", "keyType": "GPGKeys", **source, **more}]


def identity(kind: str, **more: str) -> dict[str, Any]:
    return {"signedIdentity": {"type": kind, **more}}


PREFIXES = {"prefix": "localhost:5000/signed", "signedPrefix": "registry.example.com/x"}
# Name; the signatures; the requirements; the reference that is pulled; whether it may come.
Case = tuple[str, Callable[[Signing], list[bytes]], Callable[[Signing], Requirements], str, bool]


def good(signing: Signing) -> list[bytes]:
    return [signing.sign(claim(signing.digest, f"{APP}:1"))]


def of_tag_2(signing: Signing) -> list[bytes]:
    return [signing.sign(claim(signing.digest, f"{APP}:2"))]


def elsewhere(signing: Signing) -> list[bytes]:
    return [signing.sign(claim(signing.digest, "registry.example.com/x/app:1"))]


def changed(data: bytes, at: int) -> bytes:
    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]


def by_good(signing: Signing) -> Requirements:
    return signed_by(signing, "good")


def payload(text: Callable[[Signing], bytes]) -> Callable[[Signing], list[bytes]]:
    return lambda signing: [signing.sign(text(signing))]


DIGEST = "DIGEST"  # the reference by digest
CASES: list[Case] = [
    ("good", good, by_good, f"{APP}:1", True),
    ("accept anything", lambda _: [], lambda _: ACCEPT, f"{APP}:1", True),
    ("reject", good, lambda _: REJECT, f"{APP}:1", False),
    ("accept and reject", good, lambda _: ACCEPT + REJECT, f"{APP}:1", False),
    ("no signature", lambda _: [], by_good, f"{APP}:1", False),
    ("other key", good, lambda s: signed_by(s, "other"), f"{APP}:1", False),
    ("either key", good, lambda s: signed_by(s, "other", "good"), f"{APP}:1", True),
    ("both keys, one signed", good, lambda s: by_good(s) + signed_by(s, "other"), f"{APP}:1", False),
    (
        "both keys, both signed",
        lambda s: [*good(s), s.sign(claim(s.digest, f"{APP}:1"), key="other")],
        lambda s: by_good(s) + signed_by(s, "other"),
        f"{APP}:1",
        True,
    ),
    (
        "second signature counts",
        lambda s: [s.sign(claim(s.digest, f"{APP}:1"), key="other"), *good(s)],
        by_good,
        f"{APP}:1",
        True,
    ),
    ("another tag", of_tag_2, by_good, f"{APP}:1", False),
    (
        "another tag, by repository",
        of_tag_2,
        lambda s: signed_by(s, "good", **identity("matchRepository")),
        f"{APP}:1",
        True,
    ),
    ("by digest", good, by_good, DIGEST, True),
    ("by digest, exactly", good, lambda s: signed_by(s, "good", **identity("matchExact")), DIGEST, False),
    ("exactly", good, lambda s: signed_by(s, "good", **identity("matchExact")), f"{APP}:1", True),
    ("another repository", elsewhere, by_good, f"{APP}:1", False),
    (
        "exact reference",
        elsewhere,
        lambda s: signed_by(
            s, "good", **identity("exactReference", dockerReference="registry.example.com/x/app:1")
        ),
        f"{APP}:1",
        True,
    ),
    (
        "exact repository",
        elsewhere,
        lambda s: signed_by(
            s, "good", **identity("exactRepository", dockerRepository="registry.example.com/x/app")
        ),
        f"{APP}:1",
        True,
    ),
    (
        "mapped",
        elsewhere,
        lambda s: signed_by(s, "good", **identity("remapIdentity", **PREFIXES)),
        f"{APP}:1",
        True,
    ),
    (
        "mapped, of here",
        good,
        lambda s: signed_by(s, "good", **identity("remapIdentity", **PREFIXES)),
        f"{APP}:1",
        False,
    ),
    (
        "mapped, by digest",
        elsewhere,
        lambda s: signed_by(s, "good", **identity("remapIdentity", **PREFIXES)),
        DIGEST,
        True,
    ),
    ("another image", payload(lambda s: claim(s.other_digest, f"{APP}:1")), by_good, f"{APP}:1", False),
    ("another type", payload(lambda s: claim(s.digest, f"{APP}:1", "x")), by_good, f"{APP}:1", False),
    (
        "unknown in critical",
        payload(lambda s: claim(s.digest, f"{APP}:1", more={})),
        by_good,
        f"{APP}:1",
        False,
    ),
    ("no reference", payload(lambda s: claim(s.digest, f"{APP}:1", identity={})), by_good, f"{APP}:1", False),
    ("bare reference", payload(lambda s: claim(s.digest, APP)), by_good, f"{APP}:1", False),
    ("no JSON", payload(lambda _: b"hello"), by_good, f"{APP}:1", False),
    (
        "key twice",
        payload(lambda s: claim(s.digest, f"{APP}:1").replace(b'"critical"', b'"optional": {}, "critical"')),
        by_good,
        f"{APP}:1",
        False,
    ),
    ("garbage", lambda _: [b"garbage"], by_good, f"{APP}:1", False),
    ("empty file", lambda _: [b""], by_good, f"{APP}:1", False),
    ("cut off", lambda s: [good(s)[0][:-20]], by_good, f"{APP}:1", False),
    ("changed", lambda s: [changed(good(s)[0], -30)], by_good, f"{APP}:1", False),
    (
        "unsigned message",
        lambda s: [s.gpg("--store", data=claim(s.digest, f"{APP}:1"))],
        by_good,
        f"{APP}:1",
        False,
    ),
    (
        "detached signature",
        lambda s: [s.gpg("-u", s.fingerprints["good"], "--detach-sign", data=claim(s.digest, f"{APP}:1"))],
        by_good,
        f"{APP}:1",
        False,
    ),
    (
        "signed twice",
        lambda s: [
            s.gpg(
                "-u",
                s.fingerprints["good"],
                "-u",
                s.fingerprints["other"],
                "--sign",
                data=claim(s.digest, f"{APP}:1"),
            )
        ],
        lambda s: signed_by(s, "good", "other"),
        f"{APP}:1",
        False,
    ),
    (
        "expired key",
        lambda s: [s.sign(claim(s.digest, f"{APP}:1"), key="expired", options=LONG_AGO)],
        lambda s: signed_by(s, "expired"),
        f"{APP}:1",
        False,
    ),
    (
        "expired signature",
        lambda s: [s.sign(claim(s.digest, f"{APP}:1"), options=(*LONG_AGO, "--default-sig-expire", "1d"))],
        by_good,
        f"{APP}:1",
        False,
    ),
    ("key file is no key", good, lambda s: signed_by(s, "nobody"), f"{APP}:1", False),
    (
        "key file is not there",
        good,
        lambda _: [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/nonexistent"}],
        f"{APP}:1",
        False,
    ),
    (
        "unsupported kind of key",
        good,
        lambda s: [{**by_good(s)[0], "keyType": "signedByGPGKeys"}],
        f"{APP}:1",
        False,
    ),
    (
        "mistyped key",
        good,
        lambda s: [{**by_good(s)[0], "signedIdentitty": {"type": "matchExact"}}],
        f"{APP}:1",
        False,
    ),
    ("nothing required", good, lambda _: [], f"{APP}:1", False),
]


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_verdict_is_skopeos(case: Case, signing: Signing, place: Place) -> None:
    _, signatures, requirements, reference, expected = case
    if reference == DIGEST:
        reference = f"{APP}@{signing.digest}"
    place.write_signatures(signing.digest, signatures(signing))
    policy = place.write_policy(requirements(signing))
    theirs = place.ask_skopeo(reference, policy)
    traces = list_traces(place)
    ours = place.judge(reference, policy)
    assert (ours == "", theirs == "") == (expected, expected), f"we: {ours}\nskopeo: {theirs}"
    assert bool(list_images(place.context)) == expected
    assert set(list_traces(place)) <= set(traces)  # those of skopeo's agents go meanwhile


def list_traces(place: Place) -> list[str]:
    """What gpg could leave behind: its home, directories for sockets, keys of the user's."""
    sockets = Path(f"/run/user/{os.getuid()}/gnupg")
    found = [place.top / "run", *(sockets.iterdir() if sockets.exists() else ()), Path.home() / ".gnupg"]
    return sorted(str(path) for each in found if each.exists() for path in (each, *each.rglob("*gpg*")))
