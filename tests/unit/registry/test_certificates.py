"""certs.d: which files count for which registry, and what is refused."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from usercontainerd.base.errors import InvalidFormat
from usercontainerd.registry import certificates as module
from usercontainerd.registry.certificates import Certificates, find_certificates, find_system_authorities


@pytest.fixture
def certs_d(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's certs.d; the administrator's are two directories beside it."""
    monkeypatch.setattr(module, "CERTS_D", (str(tmp_path / "admin"), str(tmp_path / "docker")))
    return tmp_path / "containers" / "certs.d"


def find(tmp_path: Path, host: str, **options: str) -> Certificates:
    return find_certificates(host, str(tmp_path), {}, **options)


def test_first_directory_counts_alone(tmp_path: Path, certs_d: Path) -> None:
    for base in (certs_d, tmp_path / "admin", tmp_path / "docker"):
        (base / "r.io:5000").mkdir(parents=True)
        (base / "r.io:5000" / f"{base.name}.crt").touch()
    assert find(tmp_path, "r.io:5000").authorities == (f"{certs_d}/r.io:5000/certs.d.crt",)
    (certs_d / "r.io:5000").rename(certs_d / "r.io")
    assert find(tmp_path, "r.io:5000").authorities == (f"{tmp_path}/admin/r.io:5000/admin.crt",)
    assert find(tmp_path, "other.io").authorities == ()
    chosen = find(tmp_path, "r.io:5000", cert_dir=f"{tmp_path}/docker/r.io:5000")
    assert chosen.authorities == (f"{tmp_path}/docker/r.io:5000/docker.crt",)
    assert find(tmp_path, "r.io:5000", cert_dir=f"{tmp_path}/missing").authorities == ()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["client.cert"], r"client\.cert has no key client\.key \(certificates of authorities are named"),
        (["client.key"], r"the key client\.key has no client certificate client\.cert"),
        (["a.cert", "b.key"], "has no key"),
        ([f"{n}.crt" for n in range(300)], "more than 256 files"),
    ],
)
def test_directories_that_are_not_whole(
    tmp_path: Path, certs_d: Path, names: list[str], message: str
) -> None:
    directory = certs_d / "r.io"
    directory.mkdir(parents=True)
    for name in names:
        (directory / name).touch()
    with pytest.raises(InvalidFormat, match=message) as caught:
        find(tmp_path, "r.io")
    assert caught.value.where == str(directory)


def test_without_verification() -> None:
    context = Certificates("r.io", ("/missing",)).build_context(verify=False, own=True)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_NONE, False)
    with pytest.raises(InvalidFormat, match="/missing: cannot be read: No such file"):
        Certificates("r.io", ("/missing",)).build_context(verify=True, own=True)


def test_system_authorities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    present = tmp_path / "bundle.pem"
    present.touch()
    monkeypatch.setattr(module, "SYSTEM_BUNDLES", (str(tmp_path / "missing"), str(present), str(tmp_path)))
    monkeypatch.setattr(module, "SYSTEM_DIRECTORIES", (str(tmp_path / "missing"),))
    assert find_system_authorities({}) == (str(present),)
    assert find_system_authorities({"SSL_CERT_FILE": "/own"}) == ("/own",)
    assert find_system_authorities({"SSL_CERT_DIR": f"{tmp_path}:/missing"}) == (str(present), str(tmp_path))
