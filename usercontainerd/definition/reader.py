"""A definition from its files on disk; whatever is wrong with them comes back as diagnostics."""

from __future__ import annotations

import errno
import os
import stat

from usercontainerd.definition.diagnostic import Diagnostic, Severity
from usercontainerd.definition.toml_reader import MAX_SIZE, SourceText, parse_definition

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.definition.model import Definition
    from usercontainerd.definition.search import Found
    from usercontainerd.definition.specifiers import Owner


def load_definition(found: Found, owner: Owner) -> tuple[Definition | None, tuple[Diagnostic, ...]]:
    """Read the files of ``found`` and parse them. The definition is None if there is any error."""
    sources: list[SourceText] = []
    problems: list[Diagnostic] = []
    for path in (found.path, *found.drop_ins):
        text = _read_text(path)
        if isinstance(text, Diagnostic):
            problems.append(text)
        else:
            sources.append(SourceText(path, text))
    if problems and problems[0].path == found.path:
        return None, tuple(problems)  # without its main file the drop-ins make no sense
    definition, diagnostics = parse_definition(found.name, sources, owner)
    return (None if problems else definition), (*problems, *diagnostics)


def _read_text(path: str) -> str | Diagnostic:
    try:
        data = _read_bytes(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return Diagnostic(path, 0, "", Severity.ERROR, f"cannot be read: {reason}")
    if len(data) > MAX_SIZE:
        return Diagnostic(path, 0, "", Severity.ERROR, f"is larger than {MAX_SIZE >> 20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return Diagnostic(path, line, "", Severity.ERROR, "is not UTF-8 text")


def _read_bytes(path: str) -> bytes:
    # O_NONBLOCK: a named pipe must not stop us; only a regular file is read.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        data = b""
        while len(data) <= MAX_SIZE:
            chunk = os.read(fd, min(max(status.st_size - len(data), 0), MAX_SIZE) + 1)
            if not chunk:
                break
            data += chunk
        return data
    finally:
        os.close(fd)
