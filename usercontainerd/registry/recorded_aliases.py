"""The aliases that were chosen at prompts: ``~/.cache/containers/short-name-aliases.conf``, shared with Podman."""

from __future__ import annotations

import os

from usercontainerd.kernel.atomicfile import FileLock, explain_write_error, write_atomic
from usercontainerd.registry.configuration_files import parse_aliases, read_toml


def find_recorded_aliases(home_cache: str) -> str:
    """Return the file's path; ``home_cache`` is the user's ``~/.cache``."""
    return f"{home_cache}/containers/short-name-aliases.conf"


def record_alias(path: str, name: str, target: str) -> None:
    """Add an alias, or change it. Raises ``StoreError``, and ``InvalidFormat`` for a damaged file, which stays."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    except OSError as error:
        raise explain_write_error(error, path) from error
    with FileLock(f"{path}.lock"):  # Podman's, too
        document = read_toml(path) or {}
        aliases = {alias.name: alias.target for alias in parse_aliases(document.get("aliases", {}), path)}
        aliases[name] = target
        # Neither names nor targets have characters that TOML would want escaped: both were parsed.
        lines = [f'  "{each}" = "{aliases[each]}"\n' for each in sorted(aliases)]
        write_atomic(path, "".join(["[aliases]\n", *lines]).encode("ascii"))
