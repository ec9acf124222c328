"""Whether a container needs its output to be a pipe: a guess from its files.

The journal's end of the output is a socket, which cannot be opened by name (ENXIO), as /dev/stderr or /proc/self/fd/2;
a pipe can. Looked at are the command and its environment, the scripts that it names, configuration, and links in
directories of logs: a bounded part of the root, through descriptors, and no link of it leads out. Lines that are
comments do not count. And journald learns the unit of a line from its writer's process ID, when it comes to read it: of
programs that end at once, such as scripts run, it loses that. A copier it always finds.

A wrong "yes" costs one small process; a wrong "no" is what ``output = "pipe"`` is for.
"""

from __future__ import annotations

import os
import stat
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NAMES = (
    "/dev/stdout",
    "/dev/stderr",
    *(f"{place}/{fd}" for place in ("/dev/fd", "/proc/self/fd", "/proc/1/fd") for fd in (1, 2)),
)
_NAMES = tuple(name.encode() for name in NAMES)
_COMMENTS = (b"#", b";", b"//", b"<!--")
_SHELLS = frozenset(("ash", "bash", "busybox", "dash", "ksh", "sh", "zsh"))
_LEADING = 4  # words of a command among which its shell is: "tini -g -- sh"

CONFIGURATION = (
    "etc",
    "usr/local/etc",
    "usr/local/*/conf",
    "usr/local/*/etc",
    "opt/*/conf",
    "opt/*/config",
    "opt/*/etc",
    "opt/*/*/conf",
    "opt/*/*/etc",
    "conf",
    "config",
    "var/spool/cron",
)
SCRIPTS = ("docker-entrypoint.d", "entrypoint.d")
LOGS = ("var/log", "usr/local/*/logs", "opt/*/logs", "opt/*/*/logs", "opt/*/log")
LOGS_BELOW = ("log", "logs", "storage/logs")  # the working directory
# What a distribution puts into /etc and no service of a container reads.
_SYSTEM = frozenset({
    "X11", "alternatives", "apt", "bash_completion.d", "ca-certificates", "crypto-policies", "dnf", "dpkg", "fonts",
    "grub.d", "init.d", "kernel", "ld.so.conf.d", "modprobe.d", "pam.d", "pki", "profile.d", "rc0.d", "rc1.d", "rc2.d",
    "rc3.d", "rc4.d", "rc5.d", "rc6.d", "rcS.d", "rpm", "security", "selinux", "skel", "ssl", "systemd", "terminfo",
    "udev", "xdg", "yum", "yum.repos.d",
})  # fmt: skip
_NO_TEXT = frozenset({
    ".bin", ".bz2", ".cache", ".cer", ".crt", ".db", ".der", ".gz", ".jar", ".jks", ".jpg", ".key", ".mo", ".p12",
    ".pem", ".png", ".pub", ".pyc", ".so", ".xz", ".zip", ".zst",
})  # fmt: skip
_CODE_OF_WORKDIR = (".cfg", ".conf", ".conf.py", ".ini", ".json", ".sh", ".toml", ".xml", ".yaml", ".yml")

MAX_FILE = 1 << 18
MAX_TOTAL = 1 << 24
MAX_ENTRIES = 6000
MAX_DEPTH = 6
MAX_STARS = 64  # directories that one * stands for
MAX_SCRIPTS = 48
MAX_SECONDS = 0.5


class Command:
    """What is run: arguments, environment as ``NAME=value``, working directory, and where programs are looked for."""

    __slots__ = ("arguments", "directory", "environment", "path")

    def __init__(
        self, arguments: Iterable[str], environment: Iterable[str] = (), directory: str = "/", path: str = ""
    ) -> None:
        self.arguments = tuple(arguments)
        self.environment = tuple(environment)
        self.directory = directory
        self.path = path


def render_command(command: Command) -> bytes:
    """The form in which ``inspect-root`` takes it: fields with a NUL after each."""
    fields = [command.directory, command.path, str(len(command.arguments))]
    fields += [*command.arguments, *command.environment]
    return b"".join(os.fsencode(field.replace("\0", "")) + b"\0" for field in fields)


def parse_command(data: bytes) -> Command:
    """Undo ``render_command``; nothing is the command that is not known."""
    if not data:
        return Command(())
    directory, path, count, *rest = [os.fsdecode(field) for field in data.split(b"\0")[:-1]]
    return Command(rest[: int(count)], rest[int(count) :], directory, path)


def find_name(text: bytes) -> str | None:
    """Return the first of the names that ``text`` has outside of lines that are comments."""
    if b"/std" not in text and b"/fd/" not in text:
        return None
    for name in _NAMES:
        end = 0
        while (start := text.find(name, end)) >= 0:
            end = start + len(name)
            line = text[text.rfind(b"\n", 0, start) + 1 : start].lstrip()
            if not text[end : end + 1].isalnum() and not line.startswith(_COMMENTS):
                return name.decode()
    return None


def find_shell(command: Command) -> str:
    """Tell whether a shell is what runs; one without anything to run ends at once."""
    for word in command.arguments[:_LEADING] if len(command.arguments) > 1 else ():
        if word.rpartition("/")[2] in _SHELLS:
            return f"{word} runs other programs"
    return ""


def split_words(arguments: Iterable[str]) -> Iterator[str]:
    """What may be a file's name in a command: arguments, the values of options, words of a shell's command line."""
    for argument in arguments:
        yield argument
        for word in argument.translate(_BREAKS).split()[:64]:
            yield word.rpartition("=")[2]


_BREAKS = str.maketrans(";&|()<>\"'`", " " * 10)


class Search:
    """One look through the files below ``root``, a descriptor; all of its limits are for the whole of it."""

    def __init__(self, root: int) -> None:
        self.root = root
        self._entries = MAX_ENTRIES
        self._bytes = MAX_TOTAL
        self._scripts = MAX_SCRIPTS
        self._deadline = time.monotonic() + MAX_SECONDS
        self._seen: set[str] = set()
        self._script = ""  # the first that was found

    @property
    def is_exhausted(self) -> bool:
        """Tell whether a limit is reached."""
        return self._entries <= 0 or self._bytes <= 0 or time.monotonic() > self._deadline

    def find_reason(self, command: Command) -> str:
        """Say in a phrase what needs an output that can be opened by name, or is the better for it; "" if nothing."""
        directory = command.directory.strip("/")
        return (
            find_in_words(command)
            or self._find_links((*LOGS, *(f"{directory}/{below}".lstrip("/") for below in LOGS_BELOW)))
            or self._find_in_scripts(command)
            or self._find_in_trees((*SCRIPTS, *CONFIGURATION))
            or self._find_in_directory(directory)
            or find_shell(command)
            or (f"{self._script} is a script" if self._script else "")
        )

    def find_in_tree(self, path: str) -> str:
        """Look through the text files below a directory; ``path`` as seen from the root."""
        for place, fd, names, _links in self._walk(path):
            for name in names:
                found = self._find_in_file(f"{place}/{name}", fd, name)
                if found:
                    return found
        return ""

    def find_in_file(self, path: str) -> str:
        """Look into one file; ``path`` as seen from the root."""
        text = self._read_path(path)
        name = find_name(text)
        return f"/{path} has {name}" if name else ""

    def _find_in_trees(self, patterns: Iterable[str]) -> str:
        for pattern in patterns:
            for path in self._expand(pattern):
                found = self.find_in_tree(path)
                if found:
                    return found
        return ""

    def _find_in_directory(self, path: str) -> str:
        """Only what lies in the directory itself."""
        for place, fd, names, _links in self._walk(path, depth=1):
            for name in names:
                if name.endswith(_CODE_OF_WORKDIR):
                    found = self._find_in_file(f"{place}/{name}".lstrip("/"), fd, name)
                    if found:
                        return found
        return ""

    def _find_links(self, patterns: Iterable[str]) -> str:
        for pattern in patterns:
            for path in self._expand(pattern):
                for place, fd, _names, links in self._walk(path):
                    for name in links:
                        target = os.readlink(name, dir_fd=fd)
                        if target.endswith(NAMES):
                            return f"/{place}/{name} is a link to {target}"
        return ""

    def _find_in_scripts(self, command: Command) -> str:
        pending = [path for word in split_words(command.arguments) for path in self._locate(word, command)]
        pending += [
            value for _, _, value in (each.partition("=") for each in command.environment) if value[:1] == "/"
        ]
        nested = False
        while pending:
            further = []
            for path in pending:
                text = self._read_script(path)
                if not text:
                    continue
                name = find_name(text)
                if name:
                    return f"{path} has {name}"
                if text.startswith(b"#!"):
                    self._script = self._script or path
                further += [
                    os.fsdecode(word) for word in text.split() if word[:1] == b"/" and word.endswith(b"sh")
                ]
            pending = [] if nested else further
            nested = True
        return ""

    def _locate(self, word: str, command: Command) -> list[str]:
        """Where a word of the command may lie as a file."""
        if not word or len(word) > 255 or word.startswith("-") or "\n" in word:
            return []
        if word.startswith("/"):
            return [word]
        places = [command.directory] if "/" in word else [*command.path.split(":"), command.directory]
        return [f"{place.rstrip('/')}/{word}" for place in places if place.startswith("/")]

    def _read_script(self, path: str) -> bytes:
        if path in self._seen or self._scripts <= 0:
            return b""
        self._seen.add(path)
        text = self._read_path(path.lstrip("/"))
        self._scripts -= bool(text)
        return text

    def _expand(self, pattern: str) -> Iterator[str]:
        """The paths that a pattern means, in which ``*`` is a whole part."""
        head, star, tail = pattern.partition("/*/")
        if not star:
            yield pattern
            return
        try:
            fd = self._open(head, os.O_DIRECTORY)
        except OSError:
            return
        try:
            names = [entry.name for entry in _list(fd) if entry.is_dir(follow_symlinks=False)][:MAX_STARS]
        finally:
            os.close(fd)
        self._entries -= len(names)
        for name in names:
            yield from self._expand(f"{head}/{name}/{tail}")

    def _walk(self, path: str, depth: int = MAX_DEPTH) -> Iterator[tuple[str, int, list[str], list[str]]]:
        """Yield directories as (path, descriptor, names of regular files, names of links); follows no link below."""
        try:
            fd = self._open(path, os.O_DIRECTORY)
        except OSError:
            return
        yield from self._walk_open(path, fd, depth)

    def _walk_open(self, path: str, fd: int, depth: int) -> Iterator[tuple[str, int, list[str], list[str]]]:
        names, links, directories = [], [], []
        try:
            for entry in _list(fd):
                self._entries -= 1
                if self.is_exhausted:
                    return
                if entry.is_symlink():
                    links.append(entry.name)
                elif entry.is_dir(follow_symlinks=False):
                    if path != "etc" or entry.name not in _SYSTEM:
                        directories.append(entry.name)
                elif entry.is_file(follow_symlinks=False) and os.path.splitext(entry.name)[1] not in _NO_TEXT:
                    names.append(entry.name)
            yield path, fd, names, links
            for name in directories if depth > 1 else ():
                try:
                    below = os.open(
                        name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd
                    )
                except OSError:
                    continue
                yield from self._walk_open(f"{path}/{name}", below, depth - 1)
        finally:
            os.close(fd)

    def _find_in_file(self, shown: str, directory: int, name: str) -> str:
        if self.is_exhausted:
            return ""
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            found = find_name(self._read(os.open(name, flags, dir_fd=directory)))
        except OSError:
            return ""
        return f"/{shown} has {found}" if found else ""

    def _read_path(self, path: str) -> bytes:
        try:
            return self._read(self._open(path, os.O_NONBLOCK | os.O_NOCTTY))
        except OSError:
            return b""

    def _read(self, fd: int) -> bytes:
        """Read a text file, b"" if it is something else; closes the descriptor."""
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return b""
            text = os.read(fd, 4096)
            if len(text) == 4096 and b"\0" not in text:
                text += os.read(fd, MAX_FILE)
        finally:
            os.close(fd)
        self._bytes -= len(text)
        return b"" if b"\0" in text[:4096] else text

    def _open(self, path: str, flags: int) -> int:
        from usercontainerd.kernel.syscalls import openat2

        return openat2(self.root, path or ".", os.O_RDONLY | os.O_CLOEXEC | flags)


def _list(fd: int) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(fd) as entries:
            yield from entries
    except OSError:
        return


def find_in_words(command: Command) -> str:
    """Look into the command and its environment themselves."""
    for word in command.arguments:
        name = find_name(os.fsencode(word))
        if name:
            return f"the command has {name}"
    for pair in command.environment:
        name = find_name(os.fsencode(pair))
        if name:
            return f"the variable {pair.partition('=')[0]} has {name}"
    return ""
