"""How registries are reached for one use case: what the configuration files say, and what the caller says over them."""

from __future__ import annotations

import os

from usercontainerd.base.records import dataclass, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.engine.context import Context
    from usercontainerd.oci.reference import Reference
    from usercontainerd.registry.authentication import Credentials
    from usercontainerd.registry.authfiles import AuthFile, Login
    from usercontainerd.registry.client import RegistryClient
    from usercontainerd.registry.configuration import Endpoint


@dataclass(frozen=True)
class RegistryAccess:
    """The options ``--authfile``, ``--creds``, ``--cert-dir`` and ``--tls-verify``; None: as the files say."""

    authfile: str | None = None
    credentials: Credentials | None = None
    cert_dir: str | None = None
    tls_verify: bool | None = None


AS_CONFIGURED = RegistryAccess()


def open_client(
    context: Context, endpoint: Endpoint, name: Reference, access: RegistryAccess = AS_CONFIGURED
) -> RegistryClient:
    """Return a client for ``endpoint``; close it after use.

    Credentials are looked up for where the endpoint really is; those of the command line are meant for the registry of
    ``name``, the user's word, and go nowhere else.
    """
    from usercontainerd.registry.certificates import find_certificates
    from usercontainerd.registry.client import RegistryClient
    from usercontainerd.registry.patience import Patience
    from usercontainerd.registry.transport import Transport

    if access.tls_verify is not None:
        endpoint = replace(endpoint, insecure=not access.tls_verify)
    if endpoint.reference.registry != name.registry:
        access = replace(access, credentials=None)
    environment = dict(context.environment)
    home_config = os.path.dirname(context.paths.config)
    host = endpoint.reference.registry
    certificates = find_certificates(host, home_config, environment, cert_dir=access.cert_dir)
    return RegistryClient(
        endpoint,
        Transport(
            environment,
            replace(certificates, host=endpoint.host),
            patience=Patience(tries=2) if endpoint.is_mirror else None,  # there is another place to ask
        ),
        find_credentials=lambda: look_up_credentials(context, endpoint.reference, access),
    )


def look_up_credentials(
    context: Context, name: Reference, access: RegistryAccess = AS_CONFIGURED
) -> Credentials | None:
    """Return the credentials for a repository, None if there are none.

    Raises ``InvalidFormat`` for a damaged file, ``HostError`` or ``RuntimeFailure`` for a credential helper.
    """
    if access.credentials is not None:
        return access.credentials
    login = look_up_login(context, name.name, access)
    return None if login is None else login.credentials


def look_up_login(context: Context, key: str, access: RegistryAccess = AS_CONFIGURED) -> Login | None:
    """Return the login for a registry or ``registry/path`` that the files and helpers have."""
    from usercontainerd.engine.images.local import read_registries
    from usercontainerd.registry.authfiles import find_login

    files = find_authfiles(context, access)
    helpers = read_registries(context).credential_helpers
    return find_login(files, key, dict(context.environment), helpers)


def find_authfiles(context: Context, access: RegistryAccess = AS_CONFIGURED) -> list[AuthFile]:
    """Return the files that may hold credentials, strongest first."""
    from usercontainerd.registry.authfiles import find_auth_files

    return find_auth_files(
        context.paths.runtime_root,
        os.path.dirname(context.paths.config),
        context.home,
        dict(context.environment),
        access.authfile,
    )
