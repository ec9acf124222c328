"""Sigstore signatures with public keys, and what skopeo says to the same policies: both must agree."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.cosign import ANNOTATION, COSIGN, attach, make_keys, sign_with
from tests.support.signing import APP, Place, Signing, claim, run
from usercontainerd.engine.images.local import list_images

Layer = tuple[bytes, Mapping[str, str]]
Requirement = dict[str, Any]


class Cosigning:
    """Keys of all kinds, and what they sign."""

    def __init__(self, signing: Signing, top: Path) -> None:
        self.signing = signing
        self.top = top
        self.pairs = {kind: make_keys(kind, top) for kind in ("p256", "p384", "rsa", "ed25519")}
        self.pairs["other"] = make_keys("p256", top, "other")

    def layer(self, payload: bytes, key: str = "p256") -> Layer:
        return payload, {ANNOTATION: sign_with(self.pairs[key][0], payload, self.top)}

    def good(self, key: str = "p256", reference: str = f"{APP}:1") -> Layer:
        return self.layer(claim(self.signing.digest, reference, COSIGN), key)

    def require(self, *keys: str, **more: Any) -> list[Requirement]:
        paths = [self.pairs[key][1] for key in keys]
        source = {"keyPath": paths[0]} if len(paths) == 1 else {"keyPaths": paths}
        return [{"type": "sigstoreSigned", **source, **more}]


@pytest.fixture(scope="module")
def cosigning(signing: Signing, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cosigning]:
    yield Cosigning(signing, tmp_path_factory.mktemp("cosign"))


BY_REPOSITORY = {"signedIdentity": {"type": "matchRepository"}}
# Name; the layers of the attachment; the requirements; whether the image may come.
Case = tuple[str, Callable[[Cosigning], list[Layer]], Callable[[Cosigning], list[Requirement]], bool]
CASES: list[Case] = [
    ("ECDSA P-256", lambda c: [c.good()], lambda c: c.require("p256"), True),
    ("ECDSA P-384", lambda c: [c.good("p384")], lambda c: c.require("p384"), True),
    ("RSA", lambda c: [c.good("rsa")], lambda c: c.require("rsa"), True),
    ("Ed25519", lambda c: [c.good("ed25519")], lambda c: c.require("ed25519"), True),
    ("second of several", lambda c: [c.good("other"), c.good()], lambda c: c.require("p256"), True),
    ("either key", lambda c: [c.good()], lambda c: c.require("other", "p256"), True),
    (
        "key in the policy",
        lambda c: [c.good()],
        lambda c: [
            {
                "type": "sigstoreSigned",
                "keyData": base64.b64encode(Path(c.pairs["p256"][1]).read_bytes()).decode(),
            }
        ],
        True,
    ),
    ("other key", lambda c: [c.good("other")], lambda c: c.require("p256"), False),
    ("both keys, one signed", lambda c: [c.good()], lambda c: c.require("p256") + c.require("other"), False),
    ("no signatures", lambda _: [], lambda c: c.require("p256"), False),
    (
        "another image",
        lambda c: [c.layer(claim(c.signing.other_digest, f"{APP}:1", COSIGN))],
        lambda c: c.require("p256"),
        False,
    ),
    ("another tag", lambda c: [c.good(reference=f"{APP}:2")], lambda c: c.require("p256"), False),
    (
        "repository only, as cosign signs",
        lambda c: [c.good(reference=APP)],
        lambda c: c.require("p256"),
        False,
    ),
    (
        "repository only, allowed",
        lambda c: [c.good(reference=APP)],
        lambda c: c.require("p256", **BY_REPOSITORY),
        True,
    ),
    (
        "simple signing's type",
        lambda c: [c.layer(claim(c.signing.digest, f"{APP}:1"))],
        lambda c: c.require("p256"),
        False,
    ),
    (
        "optional is null",
        lambda c: [
            c.layer(
                claim(c.signing.digest, f"{APP}:1", COSIGN).partition(b', "optional"')[0]
                + b', "optional": null}'
            )
        ],
        lambda c: c.require("p256"),
        True,
    ),
    (
        "unknown in critical",
        lambda c: [c.layer(claim(c.signing.digest, f"{APP}:1", COSIGN, more=1))],
        lambda c: c.require("p256"),
        False,
    ),
    (
        "changed payload",
        lambda c: [(c.good()[0] + b" ", c.good()[1])],
        lambda c: c.require("p256"),
        False,
    ),
    ("no annotation", lambda c: [(c.good()[0], {})], lambda c: c.require("p256"), False),
    ("no Base64", lambda c: [(c.good()[0], {ANNOTATION: "%"})], lambda c: c.require("p256"), False),
    (
        "rekor is not supported",
        lambda c: [c.good()],
        lambda c: c.require("p256", rekorPublicKeyPath=c.pairs["p256"][1]),
        False,
    ),
    (
        "key file is no key",
        lambda c: [c.good()],
        lambda _: [{"type": "sigstoreSigned", "keyPath": "/etc/passwd"}],
        False,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_verdict_is_skopeos(case: Case, cosigning: Cosigning, place: Place) -> None:
    _, layers, requirements, expected = case
    place.write_registries(use_sigstore_attachments="true")
    attach("signed/app", cosigning.signing.digest, layers(cosigning))
    policy = place.write_policy(requirements(cosigning))
    theirs = place.ask_skopeo(f"{APP}:1", policy)
    ours = place.judge(f"{APP}:1", policy)
    assert (ours == "", theirs == "") == (expected, expected), f"we: {ours}\nskopeo: {theirs}"
    assert bool(list_images(place.context)) == expected


def test_attachments_count_only_where_configured(cosigning: Cosigning, place: Place) -> None:
    attach("signed/app", cosigning.signing.digest, [cosigning.good()])
    policy = place.write_policy(cosigning.require("p256"))
    assert "use-sigstore-attachments" in place.judge(f"{APP}:1", policy)
    assert place.ask_skopeo(f"{APP}:1", policy)
    place.write_registries(use_sigstore_attachments="true")
    assert place.judge(f"{APP}:1", policy) == ""


def test_other_media_types_are_no_signatures(cosigning: Cosigning, place: Place) -> None:
    attach("signed/app", cosigning.signing.digest, [cosigning.good()], media_type="application/json")
    place.write_registries(use_sigstore_attachments="true")
    policy = place.write_policy(cosigning.require("p256"))
    assert "there is none" in place.judge(f"{APP}:1", policy)
    assert place.ask_skopeo(f"{APP}:1", policy)


def test_what_skopeo_signs(signing: Signing, place: Place) -> None:
    place.write_registries(use_sigstore_attachments="true")
    passphrase = place.top / "passphrase"
    passphrase.write_text("secret\n")
    prefix = str(place.top / "sigstore")
    run("skopeo", "generate-sigstore-key", "--output-prefix", prefix, "--passphrase-file", str(passphrase))
    target = "localhost:5000/signed/by-skopeo"
    run(
        "skopeo", "copy", "-q", "--all",
        "--sign-by-sigstore-private-key", f"{prefix}.private", "--sign-passphrase-file", str(passphrase),
        "docker://localhost:5000/multi", f"docker://{target}:1",
        variables={"HOME": str(place.top)},
    )  # fmt: skip
    policy = place.write_policy([{"type": "sigstoreSigned", "keyPath": f"{prefix}.pub"}])
    assert place.judge(f"{target}:1", policy) == ""
    assert place.ask_skopeo(f"{target}:1", policy) == ""
    assert place.judge(f"{APP}:1", policy) != ""
