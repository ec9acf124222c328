"""Use cases of logins: check and keep one, find it, forget it. The files and helpers are those that Podman uses."""

from __future__ import annotations

import os

from usercontainerd.base.errors import InvalidArgument, InvalidReference, NoSuchImage, RegistryError
from usercontainerd.base.records import replace
from usercontainerd.engine.images.local import read_registries
from usercontainerd.engine.registries.access import (
    AS_CONFIGURED,
    RegistryAccess,
    find_authfiles,
    look_up_login,
    open_client,
)
from usercontainerd.oci.reference import Reference, parse_reference, parse_registry
from usercontainerd.registry.authfile_changes import (
    AuthFileEditor,
    remove_all_logins,
    remove_login,
    store_login,
)
from usercontainerd.registry.authfiles import list_file_keys
from usercontainerd.registry.configuration import AUTH_FILES, Endpoint

MAX_PASSWORD = 16 * 1024  # bytes; tokens are long

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from usercontainerd.engine.context import Context
    from usercontainerd.registry.authentication import Credentials
    from usercontainerd.registry.authfiles import Login


class LoginPlace:
    """Where logins are written to: ``authfile``, or docker's ``compat``, or what the environment says."""

    def __init__(self, context: Context, authfile: str | None = None, compat: str | None = None) -> None:
        if authfile and compat:
            raise InvalidArgument("--authfile and --compat-auth-file cannot be given together")
        environment = dict(context.environment)
        if not authfile and not compat:
            authfile = environment.get("REGISTRY_AUTH_FILE")
            if not authfile and environment.get("DOCKER_CONFIG"):
                compat = f"{environment['DOCKER_CONFIG']}/config.json"
        self.environment = environment
        self.chosen = authfile or compat or None
        # docker knows nothing of the helpers of registries.conf.
        self.helpers: Sequence[str] = (AUTH_FILES,)
        if not compat:
            self.helpers = read_registries(context).credential_helpers
        path = self.chosen or f"{context.paths.runtime_root}/containers/auth.json"
        self.editor = AuthFileEditor(path, environment, docker=bool(compat))


def read_password(fd: int) -> str:
    """Read a password to the end of ``fd``; one line end goes. Raises ``InvalidArgument``."""
    data = bytearray()
    while chunk := os.read(fd, 4096):
        data += chunk
        if len(data) > MAX_PASSWORD:
            raise InvalidArgument(f"the password is longer than {MAX_PASSWORD} bytes")
    try:
        password = data.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise InvalidArgument("the password is not UTF-8") from None
    if not password:
        raise InvalidArgument("the password is empty")
    return password


def parse_login_key(text: str) -> tuple[str, str]:
    """Read ``REGISTRY[/PATH]`` or a URL, of which the host counts; return that and the registry alone.

    Raises ``InvalidReference``.
    """
    url = text.removeprefix("https://").removeprefix("http://")
    if url != text:
        text = url.partition("/")[0]
    registry, slash, path = text.rstrip("/").partition("/")
    try:
        registry = parse_registry(registry)
        # Docker Hub's are not put below library/: team means all of team.
        found = parse_reference(f"localhost/{path}") if slash else None
    except InvalidReference as error:
        raise InvalidReference(
            f"{text!r} is neither a registry nor registry/path", hint=error.what
        ) from error
    if found is None:
        return registry, registry
    if found.tag is not None or found.digest is not None:
        raise InvalidReference(f"a login is for a repository, {text!r} has a tag or digest")
    return f"{registry}/{path}", registry


def choose_registry(context: Context) -> str:
    """Return the registry that is meant where none is named: the first that is searched. Raises ``NoSuchImage``."""
    search = read_registries(context).search
    if not search:
        raise NoSuchImage("which registry?", hint="registries.conf has no unqualified-search-registries")
    return search[0]


def check_credentials(
    context: Context, registry: str, credentials: Credentials, access: RegistryAccess = AS_CONFIGURED
) -> None:
    """Ask the registry about credentials. Raises ``PullDenied`` if it does not take them, ``RegistryError``…"""
    from usercontainerd.registry.login_check import check_login

    entry = read_registries(context).find_entry(registry)
    if entry is not None and entry.blocked:
        raise RegistryError(f"{registry} is blocked by registries.conf", hint=entry.origin)
    name = Reference(registry, "")
    endpoint = Endpoint(name, entry is not None and entry.insecure)
    client = open_client(context, endpoint, name, replace(access, credentials=credentials))
    try:
        check_login(client.session)
    finally:
        client.close()


def find_known_login(context: Context, place: LoginPlace, key: str) -> Login | None:
    """Return the login that is there for ``key``. Raises what damaged files and helpers raise."""
    return look_up_login(context, key, RegistryAccess(authfile=place.chosen))


def keep_login(place: LoginPlace, key: str, credentials: Credentials) -> str:
    """Keep a login; return the file or helper that has it now."""
    return store_login(place.editor, key, credentials, place.environment, place.helpers)


def forget_login(place: LoginPlace, key: str) -> bool:
    """Forget the login for ``key``; False if there was none."""
    return remove_login(place.editor, key, place.environment, place.helpers)


def forget_all_logins(place: LoginPlace) -> None:
    """Forget all logins that are kept where we write."""
    remove_all_logins(place.editor, place.environment, place.helpers)


def list_login_keys(context: Context) -> list[str]:
    """Return what the files have logins for, sorted; no helper is asked. Damaged files have none."""
    return sorted({key for file in find_authfiles(context) for key in list_file_keys(file)})
