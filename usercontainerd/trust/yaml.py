"""The part of YAML that registries.d files are written in: block mappings of plain or quoted scalars.

    docker:
      registry.example.com:5000/team:     # comment
        lookaside: https://example.com/signatures
        use-sigstore-attachments: true

Anything else that YAML has (sequences, anchors, tags, block scalars, several documents) is refused with its line, not
guessed at: what such a file says decides which signatures are found. A package for all of YAML would be a dependency
for a dozen lines.
"""

from __future__ import annotations

import re

from usercontainerd.base.errors import InvalidFormat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

Value = str | bool | None | dict[str, "Value"]

MAX_LINES = 10_000
MAX_DEPTH = 16
# A key ends at a colon that a blank or the end of the line follows: "host:5000/name: value".
_KEY = re.compile(
    r"""(?:"(?P<double>[^"\\]*)"|'(?P<single>[^']*)'|(?P<plain>[^\s"'\[\]{}#&*!|>%@`,?:-][^#]*?))\s*:(?:\s+|\Z)"""
)
_TRUE, _FALSE = ("true", "True", "TRUE"), ("false", "False", "FALSE")
_NULL = ("", "~", "null", "Null", "NULL")


def parse_mapping(text: str, where: str) -> dict[str, Value]:
    """Parse a file whose top is a mapping; an empty file is an empty one. Raises ``InvalidFormat``."""
    return _Parser(text, where).run()


class _Parser:
    def __init__(self, text: str, where: str) -> None:
        self._where = where
        self._number = 0
        self._lines = text.lstrip("\ufeff").splitlines()
        if len(self._lines) > MAX_LINES:
            self._fail(f"has more than {MAX_LINES} lines")

    def _fail(self, what: str) -> NoReturn:
        place = f"line {self._number}: " if self._number else ""
        raise InvalidFormat(f"{place}{what}", where=self._where)

    def run(self) -> dict[str, Value]:
        top: dict[str, Value] = {}
        # Open mappings with their indentation; that of one whose first line has not come yet is -1.
        open_mappings: list[tuple[int, dict[str, Value]]] = [(-1, top)]
        pending: tuple[int, dict[str, Value], str] | None = None
        for number, line in enumerate(self._lines, 1):
            self._number = number
            body = line.lstrip(" ")
            indent = len(line) - len(body)
            if not body.strip() or body.startswith("#") or (self._is_start(line) and not top):
                continue
            if "\t" in line[: len(line) - len(line.lstrip())]:
                self._fail("is indented with a tab")
            if pending is not None and indent > pending[0]:
                child: dict[str, Value] = {}
                pending[1][pending[2]] = child
                open_mappings.append((indent, child))
                if len(open_mappings) > MAX_DEPTH:
                    self._fail("is nested too deeply")
            elif open_mappings[-1][0] == -1:
                open_mappings[-1] = (indent, top)
            pending = None
            while open_mappings and open_mappings[-1][0] > indent:
                open_mappings.pop()
            if not open_mappings or open_mappings[-1][0] != indent:
                self._fail("has an indentation that fits no line above")
            mapping = open_mappings[-1][1]
            key, value, is_open = self._parse_line(body)
            if key in mapping:
                self._fail(f"the key {key[:80]!r} is there twice")
            mapping[key] = value
            if is_open:
                pending = (indent, mapping, key)
        return top

    @staticmethod
    def _is_start(line: str) -> bool:
        return line.rstrip() == "---"

    def _parse_line(self, body: str) -> tuple[str, Value, bool]:
        match = _KEY.match(body)
        if match is None:
            self._fail("is not of the form key: value")
        key = next(text for text in match.group("double", "single", "plain") if text is not None)
        rest = body[match.end() :].strip()
        if not rest or rest.startswith("#"):
            return key, None, True
        return key, self._parse_scalar(rest), False

    def _parse_scalar(self, text: str) -> Value:
        quoted = re.match(r"""(?:"([^"\\]*)"|'([^']*)')\s*(?:#.*)?\Z""", text)
        if quoted is not None:
            return quoted[1] if quoted[1] is not None else quoted[2]
        text = re.split(r"\s#", text, maxsplit=1)[0].rstrip()
        if text == "{}":
            return {}
        if text[0] in "\"'[]{}&*!|>%@`," or text[:2] in ("- ", "? ") or ": " in text or text.endswith(":"):
            self._fail(f"{text[:80]!r} is YAML of a kind that is not read here")
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        return None if text in _NULL else text
