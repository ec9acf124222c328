"""Whom TLS trusts and who we are to it: the system's authorities, and containers-certs.d(5).

A directory ``certs.d/HOST[:PORT]`` has authorities of that registry beside the system's (``*.crt``), and pairs
``NAME.cert`` and ``NAME.key`` that say who we are. The authorities count for all that is done on behalf of the
registry, so for its token service, too; a client certificate is shown to the registry alone.
"""

from __future__ import annotations

import os
import ssl

from usercontainerd.base.errors import InvalidFormat
from usercontainerd.base.records import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# Of the distributions, in the order in which Go's crypto/x509 looks: Debian, Fedora, RHEL, SUSE, Alpine.
SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
SYSTEM_DIRECTORIES = ("/etc/ssl/certs", "/etc/pki/tls/certs")
CERTS_D = ("/etc/containers/certs.d", "/etc/docker/certs.d")
_MAX_FILES = 256


@dataclass(frozen=True)
class Certificates:
    """The files for one registry: ``host`` may have a port. ``pairs`` are certificate and key of a client.

    ``system`` are the bundles and directories that are trusted anyhow; empty means those of OpenSSL.
    """

    host: str = ""
    authorities: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    system: tuple[str, ...] = ()

    def build_context(self, *, verify: bool, own: bool) -> ssl.SSLContext:
        """Return what a connection needs: to the registry itself (``own``), or elsewhere on its behalf.

        Raises ``InvalidFormat`` naming the file that cannot be used.
        """
        context = ssl.create_default_context() if not self.system else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # What is trusted need not sign itself, as in Go's crypto/x509.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if not verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        else:
            for path in (*self.system, *self.authorities):
                _load_authorities(context, path)
        if own:
            for certificate, key in self.pairs:
                _load_pair(context, certificate, key)
        return context


def _load_authorities(context: ssl.SSLContext, path: str) -> None:
    try:
        if os.path.isdir(path):
            context.load_verify_locations(capath=path)
        else:
            context.load_verify_locations(cafile=path)
    except ssl.SSLError:
        raise InvalidFormat(
            "holds no certificate in PEM form", where=path, hint="*.crt are certificates of authorities"
        ) from None
    except OSError as error:
        raise InvalidFormat(f"cannot be read: {os.strerror(error.errno or 0)}", where=path) from error


def _load_pair(context: ssl.SSLContext, certificate: str, key: str) -> None:
    def refuse_password() -> str:
        raise InvalidFormat("the key is encrypted, and nobody is asked for its password", where=key)

    try:
        context.load_cert_chain(certificate, key, password=refuse_password)
    except ssl.SSLError as error:
        why = (
            "do not belong together"
            if error.reason == "KEY_VALUES_MISMATCH"
            else "are no certificate and key"
        )
        raise InvalidFormat(f"{os.path.basename(certificate)} and its key {why}", where=certificate) from None
    except OSError as error:
        what = f"the certificate or its key cannot be read: {os.strerror(error.errno or 0)}"
        raise InvalidFormat(what, where=certificate) from error


def find_certificates(
    host: str, home_config: str, environment: Mapping[str, str], *, cert_dir: str | None = None
) -> Certificates:
    """Return what is there for the registry ``host``; ``home_config`` is the user's ``~/.config``.

    ``cert_dir`` replaces the directories of certs.d(5). Raises ``InvalidFormat`` for a pair that is not whole.
    """
    system = find_system_authorities(environment)
    if cert_dir is not None:
        return _list_directory(host, cert_dir, system)
    for base in (f"{home_config}/containers/certs.d", *CERTS_D):
        directory = f"{base}/{host}"
        # The first that is there counts alone.
        if os.path.isdir(directory):
            return _list_directory(host, directory, system)
    return Certificates(host, system=system)


def _list_directory(host: str, directory: str, system: tuple[str, ...]) -> Certificates:
    try:
        names = sorted(os.listdir(directory))
    except (FileNotFoundError, PermissionError):
        names = []  # an administrator may keep one for docker's daemon alone
    except OSError as error:
        raise InvalidFormat(f"cannot be read: {os.strerror(error.errno or 0)}", where=directory) from error
    if len(names) > _MAX_FILES:
        raise InvalidFormat(f"has more than {_MAX_FILES} files", where=directory)
    authorities, pairs = [], []
    for name in names:
        stem, extension = os.path.splitext(name)
        if extension == ".crt":
            authorities.append(f"{directory}/{name}")
        elif extension == ".cert":
            if f"{stem}.key" not in names:
                raise InvalidFormat(
                    f"the client certificate {name} has no key {stem}.key",
                    where=directory,
                    hint="certificates of authorities are named *.crt",
                )
            pairs.append((f"{directory}/{name}", f"{directory}/{stem}.key"))
        elif extension == ".key" and f"{stem}.cert" not in names:
            raise InvalidFormat(f"the key {name} has no client certificate {stem}.cert", where=directory)
    return Certificates(host, tuple(authorities), tuple(pairs), system)


def find_system_authorities(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the bundle and the directories of trusted authorities; empty where only OpenSSL may know.

    SSL_CERT_FILE names another bundle, SSL_CERT_DIR other directories (with colons), as for OpenSSL and Podman;
    REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE are what Python's and curl's users have set.
    """
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if environment.get(name):
            files = [environment[name]]
            break
    else:
        files = [path for path in SYSTEM_BUNDLES if os.path.exists(path)][:1]
    listed = environment.get("SSL_CERT_DIR")
    if listed:
        directories = [path for path in listed.split(":") if os.path.isdir(path)]
    else:
        directories = [path for path in SYSTEM_DIRECTORIES if os.path.isdir(path)]
    return (*files, *directories)
