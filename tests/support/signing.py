"""Signed images of the real registry, made by the tools that people have: gpg, skopeo, openssl."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from usercontainerd.base.errors import UsercontainerError
from usercontainerd.base.paths import Paths
from usercontainerd.base.programs import find_programs
from usercontainerd.engine.context import Context, build_context
from usercontainerd.engine.images.local import empty_trash
from usercontainerd.engine.transfers.obtaining import pull_image
from usercontainerd.store.layout import Store

APP = "localhost:5000/signed/app"
MULTI = "localhost:5000/signed/multi"
LONG_AGO = ("--faked-system-time", "20200101T000000")
ACCEPT = [{"type": "insecureAcceptAnything"}]
REJECT = [{"type": "reject"}]


def run(*command: str, data: bytes | None = None, variables: Mapping[str, str] | None = None) -> bytes:
    """Run a program that has to succeed; return what it wrote."""
    environment = {**os.environ, **(variables or {})}
    result = subprocess.run(
        command, input=data, capture_output=True, env=environment, check=False, timeout=120
    )
    assert result.returncode == 0, f"{command}: {result.stderr.decode()}"
    return result.stdout


class Signing:
    """GPG keys ``good``, ``other``, ``parent``, ``expired`` and ``revoked``, and images in the registry to sign."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.gpg_home = str(top / "gpg")
        os.mkdir(self.gpg_home, 0o700)
        self.fingerprints: dict[str, str] = {}
        for name in ("good", "other", "revoked", "parent"):
            self._make_gpg_key(name)
        self._make_gpg_key("expired", expires="1d")
        self.digest = self._copy("busybox", f"{APP}:1")
        self.other_digest = self._copy("busybox:docker", f"{APP}:other")
        self.index_digest = self._copy("multi", f"{MULTI}:1", "--all")

    def close(self) -> None:
        """Leave no agent behind."""
        subprocess.run(["gpgconf", "--homedir", self.gpg_home, "--kill", "all"], check=False)

    def gpg(self, *arguments: str, data: bytes | None = None) -> bytes:
        """Run gpg with the tests' own keys."""
        options = ("--batch", "--yes", "--quiet", "--pinentry-mode", "loopback", "--passphrase", "")
        return run("gpg", "--homedir", self.gpg_home, *options, *arguments, data=data)

    def _make_gpg_key(self, name: str, *, expires: str = "0") -> None:
        self.gpg(*LONG_AGO, "--quick-gen-key", f"{name}@example.com", "ed25519", "sign", expires)
        listing = self.gpg("--with-colons", "--list-keys", f"{name}@example.com").decode()
        line = next(line for line in listing.splitlines() if line.startswith("fpr:"))
        self.fingerprints[name] = line.split(":")[9]

    def _copy(self, source: str, target: str, *options: str) -> str:
        run("skopeo", "copy", "-q", *options, f"docker://localhost:5000/{source}", f"docker://{target}")
        data = run("skopeo", "inspect", "--raw", f"docker://{target}")
        digest = f"sha256:{run('sha256sum', data=data).split()[0].decode()}"
        (self.top / digest.replace(":", "-")).write_bytes(data)
        return digest

    def manifest(self, digest: str) -> bytes:
        """The manifest of one of the images."""
        return (self.top / digest.replace(":", "-")).read_bytes()

    def public_key(self, name: str) -> str:
        """The file with a GPG key, as it is now."""
        path = self.top / f"{name}.gpg"
        path.write_bytes(self.gpg("--export", f"{name}@example.com"))
        return str(path)

    def revoke(self, name: str) -> None:
        """Revoke a key with the certificate that gpg has made with it."""
        fingerprint = self.fingerprints[name]
        path = Path(self.gpg_home, "openpgp-revocs.d", f"{fingerprint}.rev")
        # A colon guards it against careless use.
        self.gpg("--import", data=path.read_bytes().replace(b"\n:-----BEGIN", b"\n-----BEGIN"))

    def sign(self, payload: bytes, *, key: str = "good", options: Sequence[str] = ()) -> bytes:
        """A signed message, as a file ``signature-N`` has it."""
        return self.gpg(*options, "--local-user", self.fingerprints[key], "--sign", data=payload)


def claim(digest: str, reference: str, kind: str = "atomic container signature", **changes: Any) -> bytes:
    """The payload of a signature; ``changes`` go into its critical part."""
    critical = {
        "type": kind,
        "image": {"docker-manifest-digest": digest},
        "identity": {"docker-reference": reference},
        **changes,
    }
    return json.dumps(
        {"critical": critical, "optional": {"creator": "test 1", "timestamp": 1700000000}}
    ).encode()


class Place:
    """A home directory of its own for one case: policy, registries.d, lookaside, store."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.config = top / ".config/containers"
        self.config.mkdir(parents=True)
        self.environment = {
            "HOME": str(top),
            "PATH": os.environ["PATH"],
            "XDG_DATA_HOME": str(top / "data"),
            "XDG_RUNTIME_DIR": str(top / "run"),
        }
        (top / "run").mkdir(mode=0o700)
        self.context: Context = build_context(self.environment, find_programs(), os.getuid(), os.getgid())

    def write_policy(self, requirements: Any, scope: str = "localhost:5000/signed") -> str:
        """Everything is rejected but for one scope."""
        document = {"default": REJECT, "transports": {"docker": {scope: requirements}}}
        path = self.top / "policy.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        return str(path)

    def write_registries(self, **keys: str) -> None:
        """What registries.d says of the test's repositories; ``_`` in a key is ``-``."""
        directory = self.config / "registries.d"
        directory.mkdir(exist_ok=True)
        lines = "".join(f"    {key.replace('_', '-')}: {value}\n" for key, value in keys.items())
        (directory / "test.yaml").write_text(f"docker:\n  localhost:5000/signed:\n{lines}", encoding="utf-8")

    def write_signatures(self, digest: str, files: Sequence[bytes], repository: str = "signed/app") -> None:
        """Put signatures into a lookaside of this place."""
        directory = self.top / f"lookaside/{repository}@{digest.replace(':', '=')}"
        directory.mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(files, 1):
            (directory / f"signature-{number}").write_bytes(data)
        self.write_registries(lookaside=f"file://{self.top}/lookaside")

    def judge(self, reference: str, policy: str) -> str:
        """Our word: "" if the image came, else why not."""
        try:
            pull_image(self.context, reference, signature_policy=policy)
        except UsercontainerError as error:
            return str(error)
        return ""

    def ask_skopeo(self, reference: str, policy: str) -> str:
        """skopeo's word about the same."""
        target = self.top / "skopeo"
        result = subprocess.run(
            ["skopeo", "--policy", policy, "copy", "-q", f"docker://{reference}", f"dir:{target}"],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return "" if result.returncode == 0 else result.stderr.strip() or "refused"

    def close(self) -> None:
        """Remove what belongs to subordinate IDs."""
        store = Store(Paths.from_environment(self.environment, os.getuid()))
        if os.path.isdir(store.root):
            os.rename(store.layers, f"{store.trash}/layers")
            empty_trash(self.context)


@pytest.fixture(scope="session")
def signing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signing]:
    made = Signing(tmp_path_factory.mktemp("signing"))
    yield made
    made.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.close()
