"""What the generator writes for one container. Imports nothing."""

from __future__ import annotations


class Entry:
    """One unit: its ``text``, ``links`` that make it wanted, and ``log``, a line for each problem.

    ``links`` are paths below the generator's directory (``default.target.wants/container@app.service``).
    ``key`` stands for all that the entry was made from; one that is empty must not be used again. An entry
    without a text has only its log: a template's, for one. ``timer`` is the text of the timer of its health checks.
    """

    __slots__ = ("key", "links", "log", "name", "text", "timer")

    def __init__(
        self,
        name: str,
        key: str,
        text: str,
        links: tuple[str, ...] = (),
        log: tuple[str, ...] = (),
        *,
        timer: str = "",
    ) -> None:
        self.name = name
        self.key = key
        self.text = text
        self.timer = timer
        self.links = links
        self.log = log

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Entry) and self.fields() == other.fields()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Entry{self.fields()!r}"

    def fields(self) -> tuple[str, str, str, tuple[str, ...], tuple[str, ...], str]:
        """All of it."""
        return (self.name, self.key, self.text, self.links, self.log, self.timer)

    def units(self) -> dict[str, str]:
        """The units by their names."""
        if not self.text:
            return {}
        timer = {f"container-health@{self.name}.timer": self.timer} if self.timer else {}
        return {f"container@{self.name}.service": self.text, **timer}
