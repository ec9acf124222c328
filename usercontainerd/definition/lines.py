"""On which line a key of a TOML text stands; ``tomllib`` does not tell.

``index_lines`` walks a text that ``tomllib`` has accepted and notes the line of every table, key and array element.
It is run only when there is something to report.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

Path = tuple[str | int, ...]

_BLANKS = " \t\r"
_WHITE = " \t\r\n"
_BARE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", '"': '"', "\\": "\\", "e": "\x1b"}
_FAULTS = (LookupError, ValueError, OverflowError, RecursionError)  # of a text that is no TOML
_HEX_LENGTHS = {"x": 2, "u": 4, "U": 8}


def index_lines(text: str) -> dict[Path, int]:
    """Return the line, from 1, of every path in ``text``: ``("ports", 1)``, ``("security", "read_only")``.

    A table written in several places is where its own header is, else where it is first named. A text that is no
    TOML gives what was understood before the fault.
    """
    scanner = _Scanner(text)
    try:
        scanner.scan_document()
    except _FAULTS:
        pass
    return scanner.lines


def find_line(lines: Mapping[Path, int], path: Path) -> int:
    """Return the line of ``path``, or of the nearest thing that contains it; 1 for the file as a whole."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 1


class _Scanner:
    """A cursor over the text. Lines are counted as it moves, so moving back is not possible."""

    def __init__(self, text: str, max_parts: int | None = None) -> None:
        self.text = text + "\n"  # every token ends before the end
        self.max_parts = max_parts
        self.position = 0
        self.line = 1
        self.counted = 0  # up to where newlines are in ``line``
        self.lines: dict[Path, int] = {}
        self.lengths: dict[Path, int] = {}  # of arrays of tables

    def current_line(self) -> int:
        self.line += self.text.count("\n", self.counted, self.position)
        self.counted = self.position
        return self.line

    def skip(self, characters: str) -> str:
        """Move over ``characters``; return the one after them."""
        text, position = self.text, self.position
        while text[position] in characters:
            position += 1
        self.position = position
        return text[position]

    def skip_space(self) -> str:
        """Move over white space, newlines and comments; return the character after them."""
        while self.skip(_WHITE) == "#":
            self.position = self.text.index("\n", self.position)
        return self.text[self.position]

    def scan_document(self) -> None:
        table: Path = ()
        end = len(self.text)
        while True:
            # At the end of the document this raises IndexError, and the work is done.
            character = self.skip_space()
            if self.position >= end:
                return
            if character == "[":
                table = self.scan_header()
            else:
                self.scan_pair(table)

    def scan_header(self) -> Path:
        line = self.current_line()
        is_array = self.text.startswith("[[", self.position)
        self.position += 2 if is_array else 1
        *parents, last = self.scan_key()
        self.position += 2 if is_array else 1
        path: Path = ()
        for part in parents:
            path = self.latest((*path, part))
            self.lines.setdefault(path, line)
        path = (*path, last)
        if is_array:
            length = self.lengths.get(path, 0)
            self.lengths[path] = length + 1
            self.lines.setdefault(path, line)
            path = (*path, length)
        self.lines[path] = line
        return path

    def latest(self, path: Path) -> Path:
        """Return the last element of an array of tables, anything else as it is."""
        length = self.lengths.get(path)
        return path if length is None else (*path, length - 1)

    def scan_pair(self, table: Path) -> None:
        """``key = value``; the key may be dotted."""
        line = self.current_line()
        path = table
        for part in self.scan_key():
            path = (*path, part)
            self.lines.setdefault(path, line)
        if self.text[self.position] != "=":
            raise ValueError("no value")
        self.position += 1
        self.skip(_BLANKS)
        self.scan_value(path)

    def scan_key(self) -> list[str]:
        """Return the parts of a key; leave the cursor on what follows it."""
        parts = []
        while True:
            character = self.skip(_BLANKS)
            if character in "\"'":
                parts.append(self.scan_string())
            else:
                start = self.position
                while self.text[self.position] in _BARE:
                    self.position += 1
                if self.position == start:
                    raise ValueError("no key")
                parts.append(self.text[start : self.position])
            if self.skip(_BLANKS) != ".":
                return parts
            if len(parts) == self.max_parts:
                raise _TooLong
            self.position += 1

    def scan_value(self, path: Path) -> None:
        character = self.text[self.position]
        if character in "\"'":
            self.skip_string()
        elif character == "[":
            self.scan_array(path)
        elif character == "{":
            self.scan_inline_table(path)
        else:
            start = self.position
            while self.text[self.position] not in ",]}#\n":
                self.position += 1
            if self.position == start:
                raise ValueError("no value")  # whoever reads a list of values would never get on

    def scan_array(self, path: Path) -> None:
        self.position += 1
        index = 0
        while self.skip_space() != "]":
            element = (*path, index)
            self.lines[element] = self.current_line()
            self.scan_value(element)
            index += 1
            if self.skip_space() == ",":
                self.position += 1
        self.position += 1

    def scan_inline_table(self, path: Path) -> None:
        self.position += 1
        while self.skip_space() != "}":
            self.scan_pair(path)
            if self.skip_space() == ",":
                self.position += 1
        self.position += 1

    def skip_string(self) -> None:
        """Move behind a string of any of the four kinds."""
        text, start = self.text, self.position
        quote = text[start]
        triple = quote * 3
        multi = text.startswith(triple, start)
        ending = triple if multi else quote
        position = start + len(ending)
        end = text.index(ending, position)
        # In a basic string a quote behind a backslash does not end it; escapes are skipped one by one.
        while quote == '"' and (escape := text.find("\\", position, end)) >= 0:
            position = escape + 2
            if position > end:
                end = text.index(ending, position)
        end += len(ending)
        if multi:  # up to two more quotes belong to the text
            for _ in range(2):
                if text[end] == quote:
                    end += 1
        self.position = end

    def scan_string(self) -> str:
        """Return the text of a quoted key, which is on one line."""
        start = self.position
        quote = self.text[start]
        self.skip_string()
        body = self.text[start + 1 : self.position - 1]
        if quote == "'" or "\\" not in body:
            return body
        characters = []
        index = 0
        while index < len(body):
            character = body[index]
            if character == "\\":
                index += 1
                length = _HEX_LENGTHS.get(body[index], 0)
                digits = body[index + 1 : index + 1 + length]
                character = chr(int(digits, 16)) if length else _ESCAPES[body[index]]
                index += length
            characters.append(character)
            index += 1
        return "".join(characters)


def find_long_key(text: str, parts: int) -> int:
    """Return the line of the first key with more than ``parts`` parts, or 0; the text need not be TOML."""
    scanner = _Scanner(text, parts)
    try:
        scanner.scan_document()
    except _TooLong:
        return scanner.current_line()
    except _FAULTS:
        pass
    return 0


class _TooLong(Exception):
    """A key has too many parts."""
