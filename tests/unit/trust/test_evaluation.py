"""Whether an image meets a policy: whatever goes wrong, the answer is no."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from usercontainerd.base.errors import InvalidFormat, PullDenied, RegistryError
from usercontainerd.engine.registries.signature_fetching import parse_signature_list
from usercontainerd.oci.reference import parse_reference
from usercontainerd.trust.evaluation import Evaluation, Tools
from usercontainerd.trust.gpg import Keyring, check_status, parse_status
from usercontainerd.trust.policy import parse_policy
from usercontainerd.trust.rejection import SignatureRejected
from usercontainerd.trust.scopes import identify_in_registry
from usercontainerd.trust.signatures import MAX_SIGNATURES, Signature, SigstoreSignature, SimpleSignature

ACCEPT = {"type": "insecureAcceptAnything"}
REJECT = {"type": "reject"}
KEY = base64.b64encode(b"key").decode()
GPG = {"type": "signedBy", "keyType": "GPGKeys", "keyData": KEY}
SIGSTORE = {"type": "sigstoreSigned", "keyData": KEY}
MESSAGE = SimpleSignature(b"\xa0")
IMAGE = identify_in_registry(parse_reference("a.example/b:1"))


class Origin:
    """Gives signatures, and counts how often it is asked."""

    def __init__(self, *signatures: Signature) -> None:
        self.signatures = signatures
        self.asked = 0

    def fetch(self) -> Sequence[Signature]:
        self.asked += 1
        return self.signatures


def evaluate(origin: Origin, *requirements: Any, path: str = "/nonexistent") -> None:
    policy = parse_policy(json.dumps({"default": list(requirements)}).encode(), "policy.json")
    Evaluation(policy, IMAGE, b"{}", origin.fetch, Tools(path)).run()


def test_only_who_wants_signatures_fetches_them() -> None:
    origin = Origin()
    evaluate(origin, ACCEPT)
    with pytest.raises(PullDenied, match="no image of this origin") as caught:
        evaluate(origin, ACCEPT, REJECT)
    assert caught.value.where == "a.example/b:1"
    assert caught.value.hint == "see policy.default[1] in policy.json"
    with pytest.raises(PullDenied):
        evaluate(origin, REJECT, GPG)
    assert origin.asked == 0
    with pytest.raises(PullDenied, match="GPG signature is required"):
        evaluate(origin, ACCEPT, GPG)
    assert origin.asked == 1


@pytest.mark.parametrize(
    ("requirement", "signatures", "reason"),
    [
        (GPG, (), "there is none"),
        (GPG, (SigstoreSignature("x", b"", ()),), "there is none"),
        (GPG, (MESSAGE,), "gpg is not installed"),
        (GPG, (MESSAGE,) * (MAX_SIGNATURES + 1), "more than"),
        (SIGSTORE, (MESSAGE,), "there is none"),
        (SIGSTORE, (SigstoreSignature("text/plain", b"", ()),), "there is none"),
        ({**GPG, "keyType": "X509Certificates"}, (MESSAGE,), "not supported"),
        ({**SIGSTORE, "rekorPublicKeyData": KEY}, (), "not supported here: sigstoreSigned with rekor"),
        ({"type": "sigstoreSigned", "pki": {}}, (), "not supported"),
    ],
)
def test_refusals(requirement: Any, signatures: Sequence[Signature], reason: str) -> None:
    with pytest.raises(PullDenied, match=reason):
        evaluate(Origin(*signatures), requirement)


@pytest.mark.parametrize("error", [RegistryError("no answer"), InvalidFormat("damaged")])
def test_signatures_that_cannot_be_fetched(error: Exception) -> None:
    class Broken(Origin):
        def fetch(self) -> Sequence[Signature]:
            raise error

    with pytest.raises(PullDenied, match=str(error)):
        evaluate(Broken(), GPG)


def test_tools_that_fail(tmp_path: Path) -> None:
    """A gpg that says nothing, fails, or claims success without a status line, convinces nobody."""
    for script in ("exit 0", "exit 1", "echo '[GNUPG:] GOODSIG'; exit 0", "kill -9 $$"):
        program = tmp_path / "gpg"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        with pytest.raises(PullDenied):
            evaluate(Origin(MESSAGE), GPG, path=str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["gpg"]


def test_the_temporary_home_is_private_and_goes(tmp_path: Path) -> None:
    program = tmp_path / "gpg"
    program.write_text(
        "#!/bin/sh\n"
        f"stat -c %a \"$2\" >> '{tmp_path}/seen'\n"
        'while [ "$1" != --status-file ]; do shift; done\n'
        "echo '[GNUPG:] IMPORT_OK 1 F' > \"$2\"\n"
    )
    program.chmod(0o755)
    homes = tmp_path / "homes"
    homes.mkdir()
    with Keyring([b"key"], program=str(program), directory=str(homes)) as keyring:
        assert len(list(homes.iterdir())) == 1
        with pytest.raises(SignatureRejected):
            keyring.verify(b"message")
    assert list(homes.iterdir()) == []
    assert set((tmp_path / "seen").read_text().split()) == {"700"}


FINGERPRINT, SUBKEY = "A" * 40, "B" * 40
GOOD = (
    "[GNUPG:] NEWSIG\n"
    "[GNUPG:] KEY_CONSIDERED x 0\n"
    "[GNUPG:] GOODSIG 0123456789ABCDEF alice <a@example.com>\n"
    f"[GNUPG:] VALIDSIG {SUBKEY} 2026-01-01 1 0 4 0 22 8 00 {FINGERPRINT}\n"
    "[GNUPG:] TRUST_FULLY 0 shell\n"
    "[GNUPG:] PLAINTEXT 62 1 \n"
)


def judge(text: str, code: int = 0, trusted: str = FINGERPRINT) -> None:
    check_status(code, parse_status(text), frozenset((trusted,)))


def test_a_good_status() -> None:
    judge(GOOD)
    judge(f"gpg: words for people\n{GOOD}")
    judge(GOOD.replace(" 00 ", " 01 "))


@pytest.mark.parametrize(
    "text",
    [
        "",
        GOOD.replace("[GNUPG:] NEWSIG\n", ""),
        GOOD.replace("GOODSIG", "BADSIG"),
        GOOD.replace("GOODSIG", "EXPSIG"),
        GOOD.replace("GOODSIG", "EXPKEYSIG"),
        GOOD.replace("GOODSIG", "REVKEYSIG"),
        GOOD + "[GNUPG:] ERRSIG 0 22 8 00 1 9\n[GNUPG:] NO_PUBKEY 0\n",
        GOOD + "[GNUPG:] NEWSIG\n",
        GOOD + GOOD,
        GOOD.replace("VALIDSIG", "VALID"),
        GOOD.replace("PLAINTEXT", "TEXT"),
        GOOD + "[GNUPG:] PLAINTEXT 62 1 \n",
        GOOD + "[GNUPG:] DECRYPTION_OKAY\n",
        GOOD.replace(" 00 ", " 10 "),
        GOOD.replace(f" 00 {FINGERPRINT}", ""),
        # What a user ID holds is no status line of its own.
        "[GNUPG:] NODATA 1\n",
    ],
)
def test_a_status_that_is_not_good(text: str) -> None:
    with pytest.raises(SignatureRejected):
        judge(text)


def test_status_and_key_must_both_fit() -> None:
    with pytest.raises(SignatureRejected, match="does not trust"):
        judge(GOOD, trusted=SUBKEY)
    with pytest.raises(SignatureRejected):
        judge(GOOD, code=2)


def test_a_registrys_list() -> None:
    def build(**changes: Any) -> bytes:
        entry = {"schemaVersion": 2, "name": "x", "type": "atomic", "content": KEY, **changes}
        return json.dumps({"signatures": [entry]}).encode()

    assert parse_signature_list(build(), "here") == [SimpleSignature(b"key")]
    assert parse_signature_list(build(type="new"), "here") == []
    assert parse_signature_list(build(schemaVersion=3), "here") == []
    assert parse_signature_list(b"{}", "here") == []
    for data in (build(content="%"), build(content=1), b"[]", b'{"signatures": {}}', b""):
        with pytest.raises(InvalidFormat):
            parse_signature_list(data, "here")
    many = json.dumps({"signatures": [{}] * (MAX_SIGNATURES + 1)}).encode()
    with pytest.raises(InvalidFormat):
        parse_signature_list(many, "here")


def test_without_cryptography_no_key_is_loaded() -> None:
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from usercontainerd.base.errors import HostError\n"
        "from usercontainerd.trust.sigstore import load_keys\n"
        "try:\n    load_keys([b''])\nexcept HostError as error:\n    print(error.hint)\n"
    )
    top = Path(__file__).parents[3]
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=top)
    assert result.stdout == "install python3-cryptography\n"
