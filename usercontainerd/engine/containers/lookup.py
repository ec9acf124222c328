"""Which containers there are by name, and which one a user means: by its name, its ID, or the start of its ID.

A container's ID is made of its name: it needs no record, and is the same wherever it is asked for. Only paths are
looked at, no file is read: the fast commands load this.
"""

from __future__ import annotations

import os

from usercontainerd.base.errors import NoSuchContainer, NotRunning
from usercontainerd.base.names import is_container_name, split_instance, unit_name
from usercontainerd.kernel.cgroups import SUBGROUP, find_cgroup_mount, read_cgroup, read_kernel_file
from usercontainerd.kernel.signals import is_alive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.base.paths import Paths

SHORT_ID = 12  # digits that lists show
_FEWEST_DIGITS = 2
_HEX = "0123456789abcdef"


def container_id(name: str) -> str:
    """The ID of container ``name``: 64 hexadecimal digits, as docker's are."""
    try:
        from _sha2 import sha256  # type: ignore[import-not-found]  # the C half of hashlib (4 ms) since Python 3.12
    except ImportError:
        from hashlib import sha256
    digest: str = sha256(f"usercontainerd {name}".encode()).hexdigest()
    return digest


def definition_directories(paths: Paths) -> tuple[str, ...]:
    """All places of definitions, first found wins; what ``create`` made comes last."""
    return (*paths.definition_directories, paths.created_definitions, paths.passing_definitions)


def is_made(paths: Paths, definition: str) -> bool:
    """Tell whether this definition's file was written by ``create`` or ``run``."""
    return os.path.dirname(definition) in (paths.created_definitions, paths.passing_definitions)


def has_definition(paths: Paths, name: str) -> bool:
    """Tell whether there is a definition of ``name``, masked or not; a template's counts for its instances."""
    prefix, instance = split_instance(name)
    files = (name,) if instance is None else (name, f"{prefix}@")
    return any(os.path.lexists(f"{d}/{f}.toml") for d in definition_directories(paths) for f in files)


def is_known(paths: Paths, name: str) -> bool:
    """Tell whether there is a definition of ``name``, or something that a container left."""
    return (
        has_definition(paths, name)
        or os.path.lexists(paths.bundle(name))
        or os.path.lexists(paths.container_data(name))
    )


def list_known(paths: Paths) -> list[str]:
    """The names of all containers of which there is a definition or anything else on disk."""
    names: set[str] = set()
    for directory in definition_directories(paths):
        names.update(entry.removesuffix(".toml") for entry in _list(directory) if entry.endswith(".toml"))
    for directory in (os.path.dirname(paths.bundle("x")), os.path.dirname(paths.container_data("x"))):
        names.update(_list(directory))
    return sorted(name for name in names if is_container_name(name))


def _list(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


def resolve_name(paths: Paths, text: str) -> str:
    """Return the container that ``text`` means. Raises ``NoSuchContainer``."""
    if is_container_name(text) and is_known(paths, text):
        return text
    if len(text) >= _FEWEST_DIGITS and text.strip(_HEX) == "":
        matches = [name for name in list_known(paths) if container_id(name).startswith(text)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise NoSuchContainer(f"the ID {text} is not unique", hint=f"it may be {' or '.join(matches)}")
    raise NoSuchContainer(f'no such container "{text}"', hint="`usercontainer ps -a` lists all")


class Init:
    """A container's first process, held by a file descriptor: ``pid`` cannot become another process's unnoticed.

    ``cgroup`` is its path in the unified hierarchy, ``subgroup`` the part below the unit's own cgroup.
    """

    __slots__ = ("cgroup", "fd", "pid", "subgroup")

    def __init__(self, pid: int, fd: int, cgroup: str, subgroup: str) -> None:
        self.pid = pid
        self.fd = fd
        self.cgroup = cgroup
        self.subgroup = subgroup


def find_init(paths: Paths, name: str) -> Init | None:
    """Return the init of a running container; None if it does not run.

    The process ID that crun wrote may be that of another process by now; the kernel's word that it is in the unit's
    cgroup, got while we hold it, settles that.
    """
    try:
        with open(f"{paths.bundle(name)}/pid", encoding="utf-8") as file:
            pid = int(file.read())
        fd = os.pidfd_open(pid)
    except (OSError, ValueError):
        return None
    cgroup = read_cgroup(pid)
    if cgroup is not None and is_alive(fd):
        head, found, subgroup = f"{cgroup}/".partition(f"/{unit_name(name)}/")
        if found and head:
            return Init(pid, fd, cgroup, "/" + subgroup.rstrip("/"))
    os.close(fd)
    return None


def find_group(paths: Paths, name: str) -> str | None:
    """Return the directory of a running container's own cgroup; None if it does not run.

    By the process ID that crun wrote, if the kernel says that this process is in the unit.
    """
    pid = read_kernel_file(f"{paths.bundle(name)}/pid").decode("ascii", "replace").strip()
    unit = unit_name(name)
    head, found, _ = f"{read_cgroup(pid) if pid.isdecimal() else ''}/".partition(f"/{unit}/")
    return f"{find_cgroup_mount()}{head}/{unit}/{SUBGROUP}" if found else None


def get_init(paths: Paths, name: str) -> Init:
    """``find_init``, but raise ``NotRunning``."""
    init = find_init(paths, name)
    if init is None:
        raise NotRunning("the container does not run", where=name, hint=f"usercontainer start {name}")
    return init
