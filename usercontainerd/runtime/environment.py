"""Environment files as docker's ``--env-file`` reads them. Pure."""

from __future__ import annotations

from usercontainerd.base.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def parse_environment_file(text: str, path: str, inherited: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the pairs of an environment file.

    A line is ``NAME=value``, taken as it is (no quotes, no continuation), ``NAME`` alone for the value of the
    caller's environment, or a comment. Raises ``InvalidArgument`` with file and line.
    """
    pairs: list[tuple[str, str]] = []
    for number, raw in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        line = raw.removesuffix("\r").lstrip()
        if not line or line.startswith("#"):
            continue
        name, separator, value = line.partition("=")
        if not name or name != name.rstrip() or any(c.isspace() for c in name) or "\0" in line:
            raise InvalidArgument(f'"{name}" cannot be the name of a variable', where=f"{path}:{number}")
        if separator:
            pairs.append((name, value))
        elif name in inherited:
            pairs.append((name, inherited[name]))
    return tuple(pairs)
