"""usercontainerd.toml(5): what the user, the administrator or a package has set. The first file found wins whole.

How many layers are fetched at once is also said by containers.conf(5), for Podman and its relatives: it counts where
our own file is silent.
"""

from __future__ import annotations

import os

from usercontainerd.base.errors import InvalidFormat
from usercontainerd.base.records import dataclass
from usercontainerd.kernel.smallfiles import read_small_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from usercontainerd.engine.context import Context

FILE = "usercontainerd.toml"
MAX_SIZE = 1024 * 1024  # bytes
DEFAULT_DOWNLOADS = 3
_CONTAINERS_CONF = "containers/containers.conf"


@dataclass(frozen=True)
class Configuration:
    """``max_downloads`` layers are fetched at once; with ``keep_blobs`` they are kept in their compressed form too."""

    max_downloads: int = DEFAULT_DOWNLOADS
    keep_blobs: bool = False


def _check_downloads(value: object) -> str | None:
    good = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 32
    return None if good else "must be a number from 1 to 32"


def _check_flag(value: object) -> str | None:
    return None if isinstance(value, bool) else "must be true or false"


# Each key and what is wrong with a value; the names are the fields of Configuration.
KEYS: dict[str, dict[str, Callable[[object], str | None]]] = {
    "registry": {"max_downloads": _check_downloads},
    "store": {"keep_blobs": _check_flag},
}


def read_configuration(context: Context) -> Configuration:
    """Read the configuration as it applies to the user. Raises ``InvalidFormat`` with file and key."""
    for directory in context.paths.configuration_directories:
        path = f"{directory}/{FILE}"
        table = _read_toml(path)
        if table is not None:
            values = parse_configuration(table, path)
            break
    else:
        values = {}
    if "max_downloads" not in values:
        copies = _read_parallel_copies(os.path.dirname(context.paths.config))
        if copies is not None:
            values["max_downloads"] = copies
    return Configuration(**values)


def parse_configuration(document: dict[str, Any], path: str) -> dict[str, Any]:
    """Return the fields of ``Configuration`` that a file sets. Raises ``InvalidFormat`` with file and key."""
    values = {}
    for section, table in document.items():
        if section not in KEYS:
            raise _explain_unknown(f"there is no table or key {section!r}", section, KEYS, path)
        if not isinstance(table, dict):
            raise InvalidFormat(f"{section}: must be a table", where=path, hint=f"[{section}]")
        for key, value in table.items():
            if key not in KEYS[section]:
                raise _explain_unknown(f"there is no key {section}.{key}", key, KEYS[section], path)
            wrong = KEYS[section][key](value)
            if wrong is not None:
                raise InvalidFormat(f"{section}.{key}: {wrong}", where=path)
            values[key] = value
    return values


def _explain_unknown(what: str, word: str, possible: dict[str, Any], path: str) -> InvalidFormat:
    from usercontainerd.definition.suggestion import suggest

    likely = suggest(word, possible)
    return InvalidFormat(
        what, where=path, hint=f"did you mean {likely}?" if likely else "see usercontainerd.toml(5)"
    )


def _read_toml(path: str) -> dict[str, Any] | None:
    """Return a file's content, None if there is no such file."""
    data = read_small_file(path, MAX_SIZE, InvalidFormat)
    if data is None:
        return None
    import tomllib

    try:
        return tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidFormat(f"not TOML: {error}", where=path) from error


def _read_parallel_copies(home_config: str) -> int | None:
    """``[engine] image_parallel_copies`` of the strongest file that has it; a broken one is Podman's to report."""
    for directory in (home_config, "/etc", "/usr/share"):
        try:
            table = (_read_toml(f"{directory}/{_CONTAINERS_CONF}") or {}).get("engine")
        except InvalidFormat:
            continue
        copies = table.get("image_parallel_copies") if isinstance(table, dict) else None
        if isinstance(copies, int) and not isinstance(copies, bool) and copies > 0:
            return min(copies, 32)
    return None
