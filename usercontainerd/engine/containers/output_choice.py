"""Whether a container's output is the journal's own socket or a pipe, and why (``output``, container-definition(5))."""

from __future__ import annotations

import os
import time

from usercontainerd.base.records import dataclass
from usercontainerd.definition.model import MountType, Output
from usercontainerd.runtime.lesson import ASK, NONE, PIPE, read_lesson, write_lesson
from usercontainerd.runtime.specification import DEFAULT_PATH
from usercontainerd.runtime.streamnames import Command, Search, split_words
from usercontainerd.systemd.journal import plan_run, read_last_lines, wait_for_end

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from usercontainerd.definition.model import Definition
    from usercontainerd.engine.context import Context
    from usercontainerd.oci.image import ImageConfiguration
    from usercontainerd.runtime.identity import Identity

REASON_FILE = "output"  # in the bundle: why the output is a pipe, empty if it is none
REASON_FAILED = "a run failed that had the journal's socket: what it wrote has the words of ENXIO"
# strerror(3) of it in the C libraries of images, and its name as Node.js and Go show it
SIGNS = ("No such device or address", "ENXIO", "no such device or address")
LAST_LINES = 50
JOURNAL_PATIENCE = 5  # seconds for a journal that is behind
_CONFIGURATION_PARTS = frozenset(("conf", "conf.d", "config", "docker-entrypoint.d", "etc"))
_CONFIGURATION_SUFFIXES = (".cfg", ".cnf", ".conf", ".ini", ".sh", ".toml", ".xml", ".yaml", ".yml")


@dataclass(frozen=True)
class OutputChoice:
    """``reason`` is a phrase for people, "" for a socket; ``inputs`` are files that the choice depends on."""

    pipe: bool
    reason: str = ""
    inputs: tuple[str, ...] = ()


def read_reason(bundle: str) -> str | None:
    """Why the output of a prepared container is a pipe, "" if it is a socket; None if that is not known yet."""
    try:
        with open(f"{bundle}/{REASON_FILE}", encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return None


def describe_command(
    definition: Definition,
    image: ImageConfiguration,
    arguments: Sequence[str],
    file_environment: Sequence[tuple[str, str]],
) -> Command:
    """What the search for names goes by. Pure."""
    environment = {**dict(image.environment), **dict(file_environment), **dict(definition.environment)}
    return Command(
        arguments,
        (f"{name}={value}" for name, value in environment.items()),
        definition.working_directory or image.working_directory or "/",
        environment.get("PATH", DEFAULT_PATH),
    )


def learn_from_failure(
    context: Context, definition: Definition, image: str, notice: Callable[[str], object]
) -> str:
    """Look at the last run, if it failed soon, and return what it gives as a reason for a pipe, or "".

    ``image`` is the ID of the image that it holds for.
    """
    data = context.paths.container_data(definition.name)
    kind, subject = read_lesson(data)
    if kind == ASK:
        since, _, invocation = subject.partition(" ")
        command = plan_run(invocation, definition.name, since=since, lines=LAST_LINES)
        found = _has_sign(command, invocation, since)
        kind, subject = (PIPE if found else NONE), image
        write_lesson(data, kind, subject)
        if kind == PIPE:
            remedy = (
                "from now on its output is a pipe"
                if definition.output is Output.AUTO
                else 'its definition should say output = "pipe"'
            )
            notice(
                f"the last run seems to have opened its output by name, and the journal's is a socket: {remedy}"
            )
    return REASON_FAILED if (kind, subject) == (PIPE, image) else ""


def _has_sign(command: Sequence[str], invocation: str, since: str) -> bool:
    """Look for the words of ENXIO; a unit that restarts at once may be ahead of the journal.

    When what systemd says of the end is there, what the run has written before will be, too, in a moment.
    """
    if _look_for_sign(command):
        return True
    wait_for_end(f"USER_INVOCATION_ID={invocation}", since=since, patience=JOURNAL_PATIENCE)
    time.sleep(0.1)
    return _look_for_sign(command)


def _look_for_sign(command: Sequence[str]) -> bool:
    return any(sign in line for line in read_last_lines(command) for sign in SIGNS)


def choose_output(
    definition: Definition,
    command: Command,
    identity: Identity,
    known: str,
    volumes: Sequence[tuple[str, str]],
) -> OutputChoice:
    """Choose; ``known`` is the reason of the image or the last run, ``volumes`` are (target, directory) pairs."""
    if definition.output is not Output.AUTO:
        asked = definition.output is Output.PIPE
        return OutputChoice(asked, "the definition says so" if asked else "")
    binds = [(mount.target, mount.source) for mount in definition.mounts if mount.type is MountType.BIND]
    mounts = [*binds, *volumes]
    candidates = list(dict.fromkeys(_plan_mounted(mounts, command)))
    inputs = tuple(path for path in map(_join, candidates) if os.path.isfile(path))
    reason = known or _search_mounted(candidates)
    if not reason and identity.uid != 0:
        reason = f"it runs as user {identity.uid}, whose lines the journal would not keep with the user's own"
    return OutputChoice(bool(reason), reason, inputs)


@dataclass(frozen=True)
class _Candidate:
    """What of a mount is worth a look: ``rest`` is a path below its ``source``, "" for all of it."""

    target: str
    source: str
    rest: str = ""


def _join(candidate: _Candidate) -> str:
    return f"{candidate.source}/{candidate.rest}" if candidate.rest else candidate.source


def _plan_mounted(mounts: Sequence[tuple[str, str]], command: Command) -> Iterator[_Candidate]:
    """Configuration, and files that the command names. Pure."""
    for target, source in mounts:
        if _is_configuration(target):
            yield _Candidate(target, source)
    for word in split_words(command.arguments):
        path = os.path.normpath(os.path.join(command.directory, word)) if word and "\n" not in word else ""
        for target, source in mounts:
            above = f"{target.rstrip('/')}/"
            if path.startswith(above):
                yield _Candidate(path, source, path.removeprefix(above))
            elif path == target and not _is_configuration(target):
                yield _Candidate(target, source)


def _is_configuration(target: str) -> bool:
    return target.endswith(_CONFIGURATION_SUFFIXES) or not _CONFIGURATION_PARTS.isdisjoint(target.split("/"))


def _search_mounted(candidates: Sequence[_Candidate]) -> str:
    for each in candidates:
        root, rest = os.path.realpath(each.source), each.rest
        if not os.path.isdir(root):
            root, rest = os.path.dirname(root), os.path.basename(root)
        # From where the mount begins: what lies below may be the container's, and no link of it leads out.
        try:
            fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            search = Search(fd)
            found = (search.find_in_file(rest) if rest else "") or search.find_in_tree(rest or ".")
        finally:
            os.close(fd)
        if found:
            return f"the mount on {each.target}: {found}"
    return ""
