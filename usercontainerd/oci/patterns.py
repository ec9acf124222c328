"""Which names a pattern means, as in ``images PATTERN`` and ``--filter reference=PATTERN``."""

from __future__ import annotations


def is_named(name: str, pattern: str) -> bool:
    """Tell whether a pattern (a name, or one with ``*``, ``?`` and ``[]``) means a full name.

    The registry, the namespace before the last part, and the tag or digest may be left out; as in podman's, ``*`` does
    not match a ``/``. Pure.
    """
    repository, mark = name, ""
    for separator in ("@", ":"):
        head, found, tail = repository.rpartition(separator)
        if found and "/" not in tail:
            repository, mark = head, f"{separator}{tail}{mark}"
    parts = repository.split("/")
    endings = {"/".join(parts[start:]) for start in (0, 1, len(parts) - 1)}
    candidates = endings | {f"{ending}{mark}" for ending in endings}
    return any(_match_path(candidate, pattern) for candidate in candidates)


def _match_path(text: str, pattern: str) -> bool:
    """Go's path.Match: each part by itself."""
    if not any(sign in pattern for sign in "*?["):
        return text == pattern
    from fnmatch import fnmatchcase

    parts, patterns = text.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))
