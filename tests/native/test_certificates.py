"""Certificates and keys made by the real openssl: what can be used, what is refused, what a real registry wants."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.containers import run
from tests.support.homes import Home
from tests.support.realregistry import RealRegistry
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


def test_directory_of_somebody_else(tmp_path: Path) -> None:
    """An administrator may keep certificates for docker's daemon alone."""
    directory = tmp_path / "containers" / "certs.d" / "r.io"
    make_pair(directory, "client")
    directory.chmod(0)
    try:
        assert find(tmp_path, "r.io").pairs == ()
    finally:
        directory.chmod(0o700)


def test_encrypted_key_is_never_asked_about(tmp_path: Path) -> None:
    _, key = make_pair(tmp_path / "containers" / "certs.d" / "r.io", "client")
    subprocess.run(
        ["openssl", "pkey", "-in", str(key), "-aes256", "-passout", "pass:xyzw", "-out", f"{key}.new"],
        check=True, capture_output=True,
    )  # fmt: skip
    Path(f"{key}.new").rename(key)
    with pytest.raises(InvalidFormat, match=r"client\.key: the key is encrypted"):
        find(tmp_path, "r.io").build_context(verify=True, own=True)


# With a real registry


def pull_from(home: Home, registry: RealRegistry, *options: str) -> subprocess.CompletedProcess[str]:
    return home.run_ours("pull", "-q", *options, f"{registry.host}/busybox")


@pytest.fixture(scope="module")
def careful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    """A registry that wants to see a client's certificate, and has busybox."""
    with RealRegistry(tmp_path_factory.mktemp("careful"), client_certificates=True) as registry:
        run(
            "skopeo", "copy", "-q", "--src-tls-verify=false", "--dest-cert-dir", str(registry.certificates),
            "docker://localhost:5000/busybox", f"docker://{registry.host}/busybox",
        )  # fmt: skip
        yield registry


def test_directory_of_the_command_line(home: Home, careful: RealRegistry) -> None:
    assert pull_from(home, careful, "--cert-dir", str(careful.certificates)).returncode == 0


@pytest.mark.parametrize("missing", ["ca.crt", "client.cert", "client.key", "both"])
def test_files_that_are_missing(home: Home, careful: RealRegistry, missing: str) -> None:
    directory = home.directory / "certs"
    shutil.copytree(careful.certificates, directory)
    for name in ("client.cert", "client.key") if missing == "both" else (missing,):
        (directory / name).unlink()
    result = pull_from(home, careful, "--cert-dir", str(directory))
    assert result.returncode == 125
    expected = {
        "ca.crt": "certificate",  # "unable to get local issuer certificate"
        "client.cert": "the key client.key has no client certificate",
        "client.key": "has no key client.key",
        "both": "certificate",  # "tlsv13 alert certificate required"
    }
    assert expected[missing] in result.stderr.lower()


def test_certs_d_of_the_user(home: Home, careful: RealRegistry) -> None:
    assert pull_from(home, careful).returncode == 125
    directory = home.config / "containers" / "certs.d" / careful.host
    shutil.copytree(careful.certificates, directory)
    ours, podman = pull_from(home, careful), home.run_podman("pull", "-q", f"{careful.host}/busybox")
    assert ours.stdout == podman.stdout != ""


def test_verification_can_be_left_out_and_asked_for(home: Home, tmp_path: Path) -> None:
    with RealRegistry(tmp_path / "registry") as registry:
        run(
            "skopeo", "copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false",
            "docker://localhost:5000/busybox", f"docker://{registry.host}/busybox",
        )  # fmt: skip
        refused = pull_from(home, registry)
        assert refused.returncode == 125
        assert "TLS failed" in refused.stderr
        assert "certs.d" in refused.stderr
        assert pull_from(home, registry, "--tls-verify=false").returncode == 0
        home.configure(f'[[registry]]\nlocation = "{registry.host}"\ninsecure = true')
        assert pull_from(home, registry).returncode == 0
        assert pull_from(home, registry, "--tls-verify").returncode == 125
        home.environment["SSL_CERT_FILE"] = str(registry.ca)
        assert pull_from(home, registry, "--tls-verify").returncode == 0


def test_without_tls_only_where_that_is_said(home: Home) -> None:
    home.configure("")
    refused = home.run_ours("pull", "-q", "localhost:5000/busybox")
    assert refused.returncode == 125
    assert "--tls-verify" in refused.stderr
    assert home.run_ours("pull", "-q", "--tls-verify=false", "localhost:5000/busybox").returncode == 0
