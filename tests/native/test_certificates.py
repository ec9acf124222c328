"""Certificates and keys made by the real openssl: what can be used, and what is refused."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from usercontainerd.base.errors import InvalidFormat
from usercontainerd.registry.certificates import Certificates, find_certificates


def make_pair(directory: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate and its key."""
    directory.mkdir(parents=True, exist_ok=True)
    certificate, key = directory / f"{name}.cert", directory / f"{name}.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


def find(tmp_path: Path, host: str) -> Certificates:
    return find_certificates(host, str(tmp_path), {})


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    directory = tmp_path / "containers" / "certs.d" / "r.io"
    certificate, key = make_pair(directory, "client")
    assert find(tmp_path, "r.io").build_context(verify=True, own=True)
    (directory / "ca.crt").write_text("no certificate")
    with pytest.raises(InvalidFormat, match=r"ca\.crt: holds no certificate in PEM form"):
        find(tmp_path, "r.io").build_context(verify=True, own=False)
    (directory / "ca.crt").unlink()
    make_pair(tmp_path, "another")[1].rename(key)
    with pytest.raises(InvalidFormat, match=r"client\.cert and its key do not belong together"):
        find(tmp_path, "r.io").build_context(verify=True, own=True)
    certificate.write_text("")
    with pytest.raises(InvalidFormat, match="are no certificate and key"):
        find(tmp_path, "r.io").build_context(verify=True, own=True)
    # Elsewhere nobody is shown the client's certificate: it does not matter there.
    assert find(tmp_path, "r.io").build_context(verify=True, own=False)


def test_encrypted_key_is_never_asked_about(tmp_path: Path) -> None:
    _, key = make_pair(tmp_path / "containers" / "certs.d" / "r.io", "client")
    subprocess.run(
        ["openssl", "pkey", "-in", str(key), "-aes256", "-passout", "pass:xyzw", "-out", f"{key}.new"],
        check=True, capture_output=True,
    )  # fmt: skip
    Path(f"{key}.new").rename(key)
    with pytest.raises(InvalidFormat, match=r"client\.key: the key is encrypted"):
        find(tmp_path, "r.io").build_context(verify=True, own=True)
