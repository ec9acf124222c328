"""The likely word for a misspelt one. Imported only once something is wrong."""

from __future__ import annotations

import difflib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def squash(word: str) -> str:
    """Return ``word`` without what spellings differ in: ``AddCapability`` and ``add-capability`` are one."""
    return word.lower().replace("_", "").replace("-", "")


def suggest(word: str, possible: Iterable[str]) -> str | None:
    """Return the nearest of ``possible``, or None if none is near."""
    by_squashed = {squash(each): each for each in possible}
    wanted = squash(word[:64])
    if wanted in by_squashed:
        return by_squashed[wanted]
    near = difflib.get_close_matches(wanted, by_squashed, 3, 0.7)
    # Letters in the wrong order are a likelier slip than a wrong one: "strat" is start, not stats.
    near.sort(key=lambda each: sorted(each) != sorted(wanted))
    return by_squashed[near[0]] if near else None
