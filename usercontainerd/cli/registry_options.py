"""The options of every verb that talks to a registry: who the caller is to it, and how far TLS is checked."""

from __future__ import annotations

import os

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.cli.options import Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.cli.call import Call
    from usercontainerd.engine.registries.access import RegistryAccess
    from usercontainerd.registry.authentication import Credentials

AUTHFILE = Option("--authfile FILE", "the file with logins, instead of auth.json (REGISTRY_AUTH_FILE)")
CERT_DIR = Option("--cert-dir DIRECTORY", "certificates for the registry: *.crt, *.cert and *.key")
TLS_VERIFY = Option("--tls-verify", "insist on TLS with a valid certificate, or not (=false)")
ACCESS_OPTIONS = (
    AUTHFILE,
    CERT_DIR,
    Option("--creds USER[:PASSWORD]", "the login for the registry; asks for a password that is missing"),
    TLS_VERIFY,
)


def read_access(call: Call) -> RegistryAccess:
    """Return what the options of ``ACCESS_OPTIONS`` say. Raises ``InvalidArgument``."""
    from usercontainerd.engine.registries.access import RegistryAccess

    options = call.options
    creds = options.value("creds")
    return RegistryAccess(
        authfile=find_authfile(call),
        credentials=None if creds is None else read_credentials(creds),
        cert_dir=options.value("cert-dir"),
        tls_verify=options.flag("tls-verify") if options.given("tls-verify") else None,
    )


def find_authfile(call: Call, option: Option = AUTHFILE) -> str | None:
    """``--authfile``, which must be there: a mistyped name would mean no login at all."""
    authfile = call.options.value(option.key)
    if authfile is not None and not os.access(authfile, os.R_OK):
        raise InvalidArgument(
            "there is no such file, or you may not read it", where=f"--{option.key} {authfile}"
        )
    return authfile


def read_credentials(text: str) -> Credentials:
    """``USER:PASSWORD``, or ``USER`` whose password is asked for on the terminal. Raises ``InvalidArgument``."""
    from usercontainerd.registry.authentication import Credentials

    user, colon, password = text.partition(":")
    if not user:
        raise InvalidArgument("--creds needs a user name", hint="--creds USER[:PASSWORD]")
    if not colon:
        from usercontainerd.cli.terminal import ask_secret, has_keyboard

        if not has_keyboard():
            raise InvalidArgument(
                "--creds needs a password where there is no terminal to ask on",
                hint="--creds USER:PASSWORD, or log in first",
            )
        password = ask_secret("Password: ")
    return Credentials(user, password)
