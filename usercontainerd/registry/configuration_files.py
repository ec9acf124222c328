"""Reading registries.conf(5) version 2, its drop-ins, and the aliases that were chosen at prompts.

A key that is not known here is ignored, as Podman does; one whose value makes no sense is an error that names file and
key. Files are small: one of more than 1 MiB is refused.
"""

from __future__ import annotations

import os

from usercontainerd.base.errors import InvalidFormat, InvalidReference
from usercontainerd.kernel.smallfiles import read_small_file
from usercontainerd.oci.reference import DOCKER_HUB, is_registry, parse_reference, parse_registry
from usercontainerd.registry.configuration import (
    AUTH_FILES,
    Alias,
    Mirror,
    MirrorUse,
    RegistriesConfiguration,
    RegistryEntry,
    ShortNameMode,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SYSTEM = "/etc/containers/registries.conf"
VENDOR = "/usr/share/containers/registries.conf"
_MAX_FILE = 1024 * 1024
_SEARCH = "unqualified-search-registries"


def find_configuration_files(home_config: str, environment: Mapping[str, str]) -> list[str]:
    """Return the files to read, weakest first; ``home_config`` is the user's ``~/.config``.

    CONTAINERS_REGISTRIES_CONF names another main file, which must be there; CONTAINERS_REGISTRIES_CONF_DIR the only
    directory of drop-ins. Raises ``InvalidFormat`` for a directory that cannot be read.
    """
    user = f"{home_config}/containers/registries.conf"
    override = environment.get("CONTAINERS_REGISTRIES_CONF")
    directories = [f"{SYSTEM}.d", f"{user}.d"]
    if override:
        main: str | None = override
    elif os.path.exists(user):
        # A user's own file stands alone: the system's directory is not read (containers-registries.conf.d(5)).
        main, directories = user, [f"{user}.d"]
    else:
        main = next((path for path in (SYSTEM, VENDOR) if os.path.exists(path)), None)
    chosen = environment.get("CONTAINERS_REGISTRIES_CONF_DIR")
    if chosen:
        directories = [chosen]
    return [*([main] if main else []), *(path for each in directories for path in _list_drop_ins(each))]


def _list_drop_ins(directory: str) -> list[str]:
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        # Not passed over: it may say what is blocked.
        raise InvalidFormat(f"cannot be read: {os.strerror(error.errno or 0)}", where=directory) from error
    paths = [f"{directory}/{name}" for name in sorted(names) if name.endswith(".conf")]
    return [path for path in paths if not os.path.isdir(path)]


def read_registries_configuration(
    home_config: str, environment: Mapping[str, str], *, recorded: str | None = None
) -> RegistriesConfiguration:
    """Read what is there; without any file, short names mean Docker Hub. Raises ``InvalidFormat``.

    ``recorded`` is the file with the aliases that were chosen at prompts; it is stronger than all others.
    """
    documents = []
    for path in find_configuration_files(home_config, environment):
        document = read_toml(path)
        if document is not None:
            documents.append((path, document))
        elif path == environment.get("CONTAINERS_REGISTRIES_CONF"):
            raise InvalidFormat(
                "there is no such file", where=path, hint="CONTAINERS_REGISTRIES_CONF names it"
            )
    chosen = read_toml(recorded) if recorded is not None else None
    if recorded is None or chosen is None:
        return merge_configurations(documents)
    return merge_configurations(documents, parse_aliases(chosen.get("aliases", {}), recorded))


def read_toml(path: str) -> dict[str, object] | None:
    """Return the document, None if there is no file (any more). Raises ``InvalidFormat`` with line and column."""
    import tomllib

    data = read_small_file(path, _MAX_FILE, InvalidFormat)
    if data is None:
        return None
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidFormat(f"not valid TOML: {error}", where=path) from error


def merge_configurations(
    documents: Iterable[tuple[str, Mapping[str, object]]], recorded: Iterable[Alias] = ()
) -> RegistriesConfiguration:
    """Put parsed files together, later ones over earlier ones. Raises ``InvalidFormat`` naming the file."""
    search: tuple[str, ...] | None = None
    helpers: tuple[str, ...] = ()
    mode = ShortNameMode.PERMISSIVE
    entries: dict[str, RegistryEntry] = {}
    aliases: dict[str, Alias] = {}
    first = origin = ""
    for path, document in documents:
        first = first or path
        _refuse_version_1(document, path)
        if _SEARCH in document:
            search, origin = _parse_search(document[_SEARCH], path), path
        if "credential-helpers" in document:
            helpers = _texts(document["credential-helpers"], "credential-helpers", path)
        if document.get("short-name-mode", "") != "":
            mode = _parse_mode(document["short-name-mode"], path)
        entries |= {entry.prefix: entry for entry in parse_registries(document.get("registry", []), path)}
        aliases |= {alias.name: alias for alias in parse_aliases(document.get("aliases", {}), path)}
    aliases |= {alias.name: alias for alias in recorded}
    if search is None:
        # A configuration that names no registry to search means it; a host without any is Docker's.
        search, origin = () if first else (DOCKER_HUB,), first
    return RegistriesConfiguration(
        search=search,
        registries=tuple(entries[prefix] for prefix in sorted(entries)),
        aliases=tuple(aliases.values()),
        mode=mode,
        credential_helpers=helpers or (AUTH_FILES,),
        search_origin=origin,
    )


def _refuse_version_1(document: Mapping[str, object], path: str) -> None:
    table = document.get("registries")
    if isinstance(table, dict) and not set(table) & {"search", "insecure", "block"}:
        return
    if table is not None:
        raise InvalidFormat(
            "[registries.…] is the old format (version 1), which has been replaced",
            where=path,
            hint="[[registry]] and unqualified-search-registries, see registries.conf(5)",
        )


def _texts(value: object, key: str, path: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidFormat(f"{key} must be an array of strings", where=path)
    return tuple(value)


def _parse_search(value: object, path: str) -> tuple[str, ...]:
    found = []
    for text in _texts(value, _SEARCH, path):
        registry = _check_location(text, _SEARCH, path)
        try:
            parse_registry(registry)
            known = is_registry(registry)
        except InvalidReference:
            known = False
        if not known:
            raise InvalidFormat(
                f"{_SEARCH}: {text!r} is not a registry",
                where=path,
                hint="host[:port], with a dot, a port, or localhost",
            )
        found.append(registry)
    return tuple(found)


def _parse_mode(value: object, path: str) -> ShortNameMode:
    try:
        return ShortNameMode(value)  # type: ignore[arg-type]
    except ValueError:
        raise InvalidFormat(
            f"short-name-mode: {value!r} is not a mode", where=path, hint="enforcing, permissive or disabled"
        ) from None


def _check_location(text: str, key: str, path: str) -> str:
    if text.startswith(("http://", "https://")):
        raise InvalidFormat(f"{key} {text!r} must not name a scheme", where=path)
    return text.rstrip("/")


# [[registry]]


def parse_registries(value: object, path: str) -> list[RegistryEntry]:
    """Parse the ``registry`` array of one file; of two tables for one prefix the first counts.

    Raises ``InvalidFormat`` naming the table and key.
    """
    entries: dict[str, RegistryEntry] = {}
    flags: dict[str, RegistryEntry] = {}
    for number, table in enumerate(_tables(value, "registry", path)):
        entry = _parse_entry(table, f"registry[{number}]", path)
        other = flags.setdefault(entry.location or entry.prefix, entry)
        for key in ("insecure", "blocked"):
            if getattr(entry, key) != getattr(other, key):
                raise InvalidFormat(
                    f"registry[{number}].{key}: other tables say otherwise of "
                    f"{entry.location or entry.prefix!r}",
                    where=path,
                )
        entries.setdefault(entry.prefix, entry)
    return list(entries.values())


def _tables(value: object, key: str, path: str) -> list[dict[str, object]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise InvalidFormat(f"{key} must be an array of tables: [[{key}]]", where=path)
    return value


def _parse_entry(table: Mapping[str, object], key: str, path: str) -> RegistryEntry:
    prefix, location = (
        _check_location(_text(table, name, key, path), f"{key}.{name}", path)
        for name in ("prefix", "location")
    )
    wildcard = prefix.startswith("*.")
    if wildcard and set(prefix) & set("/@:"):
        raise InvalidFormat(f"{key}.prefix: {prefix!r} may have the form *.example.com only", where=path)
    if not location and not wildcard:
        if not prefix:
            raise InvalidFormat(f"{key} has neither prefix nor location", where=path)
        raise InvalidFormat(f"{key} has no location", where=path, hint=f'location = "{prefix}"')
    if _text(table, "pull-from-mirror", key, path):
        raise InvalidFormat(f"{key}.pull-from-mirror is for mirrors only", where=path)
    by_digest = _flag(table, "mirror-by-digest-only", key, path)
    mirrors = _tables(table.get("mirror", []), f"{key.partition('[')[0]}.mirror", path)
    return RegistryEntry(
        prefix=prefix or location,
        location=location,
        insecure=_flag(table, "insecure", key, path),
        blocked=_flag(table, "blocked", key, path),
        mirrors=tuple(
            _parse_mirror(mirror, f"{key}.mirror[{number}]", path, by_digest)
            for number, mirror in enumerate(mirrors)
        ),
        origin=path,
    )


def _parse_mirror(table: Mapping[str, object], key: str, path: str, by_digest: bool) -> Mirror:
    location = _check_location(_text(table, "location", key, path), f"{key}.location", path)
    if not location:
        raise InvalidFormat(f"{key} has no location", where=path)
    use = _text(table, "pull-from-mirror", key, path)
    if use and by_digest:
        raise InvalidFormat(
            f"{key}.pull-from-mirror: the registry says mirror-by-digest-only = true already", where=path
        )
    if use and use not in list(MirrorUse):
        raise InvalidFormat(
            f"{key}.pull-from-mirror: {use!r} is not possible",
            where=path,
            hint="all, digest-only or tag-only",
        )
    return Mirror(
        location,
        _flag(table, "insecure", key, path),
        MirrorUse.DIGEST_ONLY if by_digest else MirrorUse(use or MirrorUse.ALL),
    )


def _text(table: Mapping[str, object], name: str, key: str, path: str) -> str:
    value = table.get(name, "")
    if not isinstance(value, str):
        raise InvalidFormat(f"{key}.{name} must be a string", where=path)
    return value


def _flag(table: Mapping[str, object], name: str, key: str, path: str) -> bool:
    value = table.get(name, False)
    if not isinstance(value, bool):
        raise InvalidFormat(f"{key}.{name} must be true or false", where=path)
    return value


# [aliases]


def parse_aliases(value: object, path: str) -> list[Alias]:
    """Parse the ``aliases`` table of one file. Raises ``InvalidFormat`` naming the alias."""
    if not isinstance(value, dict):
        raise InvalidFormat("aliases must be a table", where=path)
    return [_parse_alias(name, target, path) for name, target in value.items()]


def _parse_alias(name: str, target: object, path: str) -> Alias:
    if not isinstance(target, str):
        raise InvalidFormat(f"aliases.{name} must be a string", where=path)
    try:
        short = parse_reference(name)
        full = parse_reference(target) if target else None
    except InvalidReference as error:
        raise InvalidFormat(f"aliases.{name}: {error}", where=path) from error
    if not short.is_short or str(short) != name or short.tag is not None or short.digest is not None:
        raise InvalidFormat(f"aliases.{name}: must be a name without registry, tag and digest", where=path)
    if full is None:
        return Alias(name, "", path)
    if full.is_short or full.tag is not None or full.digest is not None:
        raise InvalidFormat(
            f"aliases.{name}: {target!r} must have a registry, and neither tag nor digest", where=path
        )
    return Alias(name, full.name, path)
