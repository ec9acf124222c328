"""A real registry (docker-registry) of the test's own on loopback: TLS from a CA of its own, users with passwords.

For tests in the machine, as an ordinary user. What is pushed into it lies in ``directory`` and goes with it.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.support.ports import find_port

USER, PASSWORD = "alice", "wonderland: €"

_OPENSSL = """\
[req]
distinguished_name = name
prompt = no
[name]
CN = {name}
[ca]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical,CA:FALSE
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost,IP:127.0.0.1
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[client]
basicConstraints = critical,CA:FALSE
extendedKeyUsage = clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


def hash_password(password: str) -> str:
    """The password as a line of an htpasswd file has it: bcrypt, the only form that docker-registry takes."""
    crypt = ctypes.CDLL("libcrypt.so.1").crypt
    crypt.restype = ctypes.c_char_p
    hashed: bytes = crypt(password.encode(), b"$2y$04$abcdefghijklmnopqrstuu")
    return hashed.decode("ascii")


class Authority:
    """A certificate authority in a directory: ``certificate`` is what its clients have to trust."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.directory = directory
        self.certificate = directory / "ca.crt"
        self._issue("ca", "Test authority")

    def issue(self, kind: str) -> tuple[Path, Path]:
        """A certificate for ``server`` (localhost, 127.0.0.1) or ``client``, and its key."""
        return self._issue(kind, kind, "-CA", str(self.certificate), "-CAkey", str(self.directory / "ca.key"))

    def _issue(self, kind: str, name: str, *signer: str) -> tuple[Path, Path]:
        configuration = self.directory / f"{kind}.cnf"
        configuration.write_text(_OPENSSL.format(name=name))
        certificate, key = self.directory / f"{kind}.crt", self.directory / f"{kind}.key"
        command = [
            "openssl",
            "req",
            "-x509",
            "-config",
            str(configuration),
            "-extensions",
            kind,
            "-days",
            "2",
        ]
        command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", *signer]
        command += ["-keyout", str(key), "-out", str(certificate)]
        subprocess.run(command, check=True, capture_output=True)
        return certificate, key


class RealRegistry:
    """One docker-registry. ``host`` is ``localhost:PORT``; ``ca`` the file to trust, None without TLS.

    ``users`` are names and passwords; without any, everybody may do everything. With ``client_certificates``
    it wants one that its authority has issued: ``client`` is a pair of certificate and key. ``certificates``
    is a directory with what a client needs, as in ``certs.d``: ca.crt, and client.cert and client.key.
    """

    def __init__(
        self,
        directory: Path,
        *,
        tls: bool = True,
        users: Mapping[str, str] | None = None,
        client_certificates: bool = False,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.users = dict(users or {})
        self.port = find_port()
        self.host = f"localhost:{self.port}"
        self.log = directory / "log"
        self.certificates = directory / "certs"
        self.certificates.mkdir()
        self.ca: Path | None = None
        self.client: tuple[Path, Path] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        own = None
        if tls:
            authority = Authority(directory / "authority")
            own = authority.issue("server")
            self.ca = self.certificates / "ca.crt"
            self.ca.write_bytes(authority.certificate.read_bytes())
            if client_certificates:
                certificate, key = authority.issue("client")
                self.client = (
                    certificate.rename(self.certificates / "client.cert"),
                    key.rename(self.certificates / "client.key"),
                )
        self._write_configuration(own)

    def _write_configuration(self, own: tuple[Path, Path] | None) -> None:
        http: dict[str, object] = {"addr": f"127.0.0.1:{self.port}", "secret": "the test's own"}
        if own is not None:
            tls: dict[str, object] = {"certificate": str(own[0]), "key": str(own[1])}
            if self.client is not None:
                tls["clientcas"] = [str(self.ca)]
            http["tls"] = tls
        configuration: dict[str, object] = {
            "version": "0.1",
            "log": {"level": "warn"},
            "storage": {
                "filesystem": {"rootdirectory": str(self.directory / "storage")},
                "delete": {"enabled": True},
            },
            "http": http,
        }
        if self.users:
            lines = [f"{user}:{hash_password(password)}\n" for user, password in self.users.items()]
            (self.directory / "htpasswd").write_text("".join(lines))
            configuration["auth"] = {
                "htpasswd": {"realm": "test", "path": str(self.directory / "htpasswd")},
            }
        # JSON is YAML.
        (self.directory / "registry.yml").write_text(json.dumps(configuration))

    def __enter__(self) -> Self:
        # The environment could override any setting: REGISTRY_….
        environment = {"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                ["docker-registry", "serve", str(self.directory / "registry.yml")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )
        end = time.monotonic() + 60
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                self.__exit__(None, None, None)
                pytest.fail(f"docker-registry did not start:\n{self.log.read_text()}")
            time.sleep(0.02)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1):
                return True
        except OSError:
            return False

    def ask(
        self, path: str, *, user: str | None = None, accept: str = "*/*"
    ) -> tuple[int, dict[str, str], bytes]:
        """GET ``/v2/…`` past our own client, as ``user``: status, headers (in lower case), body."""
        request = urllib.request.Request(
            f"{'https' if self.ca else 'http'}://{self.host}{path}", headers={"Accept": accept}
        )
        if user is not None:
            word = base64.b64encode(f"{user}:{self.users[user]}".encode()).decode("ascii")
            request.add_header("Authorization", f"Basic {word}")
        context = None
        if self.ca is not None:
            context = ssl.create_default_context(cafile=str(self.ca))
            if self.client is not None:
                context.load_cert_chain(*self.client)
        try:
            with urllib.request.urlopen(request, timeout=60, context=context) as answer:
                return answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, {k.lower(): v for k, v in error.headers.items()}, error.read()


@pytest.fixture(scope="module")
def secure_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    """A registry with TLS and the user ``USER``; one for all tests of a module."""
    with RealRegistry(tmp_path_factory.mktemp("registry"), users={USER: PASSWORD}) as registry:
        yield registry
