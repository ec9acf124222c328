"""ID maps: which IDs of a user namespace are which on the host (user_namespaces(7), subuid(5)).

Imports nothing heavy: the launcher loads it.
"""

from __future__ import annotations

import posix as os

from usercontainerd.base.errors import HostError, SubIdsMissing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

NEWUIDMAP = "/usr/bin/newuidmap"
NEWGIDMAP = "/usr/bin/newgidmap"
MAX_EXTENTS = 340  # user_namespaces(7): the kernel's limit since 4.15


class Extent(tuple[int, int, int]):
    """``length`` IDs from ``inside`` in the namespace are those from ``outside`` on the host."""

    __slots__ = ()

    def __new__(cls, inside: int, outside: int, length: int) -> Extent:  # noqa: D102
        return tuple.__new__(cls, (inside, outside, length))

    @property
    def inside(self) -> int:
        """First ID in the namespace."""
        return self[0]

    @property
    def outside(self) -> int:
        """First ID on the host."""
        return self[1]

    @property
    def length(self) -> int:
        """How many."""
        return self[2]


class IdMap:
    """The UID and the GID map of a user namespace."""

    __slots__ = ("gids", "uids")

    def __init__(self, uids: Iterable[Extent], gids: Iterable[Extent]) -> None:
        self.uids = tuple(uids)
        self.gids = tuple(gids)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdMap) and (self.uids, self.gids) == (other.uids, other.gids)

    def __hash__(self) -> int:
        return hash((self.uids, self.gids))

    @property
    def single(self) -> bool:
        """True if only one ID each is mapped: the kernel then needs no newuidmap."""
        return all(len(e) == 1 and e[0].length == 1 for e in (self.uids, self.gids))

    def render(self) -> str:
        """One line, as ``parse_id_map`` reads it: ``0:1000:1,1:100000:65536/0:1000:1,…``."""
        return "/".join(
            ",".join(":".join(map(str, e)) for e in extents) for extents in (self.uids, self.gids)
        )


def parse_id_map(text: str) -> IdMap:
    """Read what ``IdMap.render`` wrote."""
    uids, gids = (
        tuple(Extent(*map(int, part.split(":", 2))) for part in half.split(","))
        for half in text.split("/", 1)
    )
    return IdMap(uids, gids)


def plan_id_map(
    uid: int, gid: int, uid_ranges: Iterable[tuple[int, int]], gid_ranges: Iterable[tuple[int, int]]
) -> IdMap:
    """Map root to the user and 1, 2, … to the subordinate ranges in their order, as every rootless tool does."""

    def extents(own: int, ranges: Iterable[tuple[int, int]]) -> list[Extent]:
        result = [Extent(0, own, 1)]
        inside = 1
        for start, length in ranges:
            if length > 0 and len(result) < MAX_EXTENTS:
                result.append(Extent(inside, start, length))
                inside += length
        return result

    return IdMap(extents(uid, uid_ranges), extents(gid, gid_ranges))


def plan_single_map(uid: int, gid: int) -> IdMap:
    """Map root to the user and nothing else."""
    return plan_id_map(uid, gid, (), ())


def parse_subordinate_ids(text: str, uid: int, user: str) -> list[tuple[int, int]]:
    """Return the (start, count) ranges of a subuid(5) file that belong to ``user`` by name or number."""
    ranges = []
    for line in text.splitlines():
        owner, _, rest = line.strip().partition(":")
        start, _, count = rest.partition(":")
        if owner in (user, str(uid)) and start.isdecimal() and count.isdecimal():
            ranges.append((int(start), int(count)))
    return ranges


def _read_ranges(path: str, uid: int, user: str, kind: str) -> list[tuple[int, int]]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            ranges = parse_subordinate_ids(file.read(), uid, user)
    except FileNotFoundError:
        ranges = []
    # nsswitch.conf may name another source (FreeIPA); getsubids(1) asks it.
    return ranges or _ask_getsubids(user, kind)


def _ask_getsubids(user: str, kind: str) -> list[tuple[int, int]]:
    program = "/usr/bin/getsubids"
    try:
        with open("/etc/nsswitch.conf", encoding="utf-8", errors="replace") as file:
            if not any(line.partition(":")[0].strip() == "subid" for line in file):
                return []
    except FileNotFoundError:
        return []
    if not os.access(program, os.X_OK):
        return []
    import subprocess

    output = subprocess.run(
        [program, *(["-g"] if kind == "gid" else []), user],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    ).stdout
    ranges = []
    for line in output.splitlines():
        words = line.split()
        if len(words) == 4 and words[2].isdecimal() and words[3].isdecimal():
            ranges.append((int(words[2]), int(words[3])))
    return ranges


def read_id_map(
    uid: int, gid: int, user: str, *, subuid: str = "/etc/subuid", subgid: str = "/etc/subgid"
) -> IdMap:
    """Return the user's map: with subordinate IDs if there are some and newuidmap is installed, else a single ID."""
    uids = _read_ranges(subuid, uid, user, "uid")
    gids = _read_ranges(subgid, uid, user, "gid")
    if uids and gids and os.access(NEWUIDMAP, os.X_OK) and os.access(NEWGIDMAP, os.X_OK):
        return plan_id_map(uid, gid, uids, gids)
    return plan_single_map(uid, gid)


def explain_single_map(user: str, uid: int, gid: int) -> SubIdsMissing:
    """The error for an image that needs more than one ID: names what is missing and the command that adds it."""
    if not (os.access(NEWUIDMAP, os.X_OK) and os.access(NEWGIDMAP, os.X_OK)):
        return SubIdsMissing(
            "newuidmap and newgidmap are not installed, so only one user ID can be used",
            where=NEWUIDMAP,
            hint="install the package shadow-utils-subid (Fedora) or uidmap (Debian)",
        )
    return SubIdsMissing(
        f"user {user} has no subordinate IDs, so only one user ID can be used",
        where="/etc/subuid, /etc/subgid",
        hint=f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}",
    )


def start_map_writers(pid: int, id_map: IdMap) -> list[tuple[str, int]]:
    """Start what writes the maps of process ``pid``; return (program, its pid) pairs for ``finish_map_writers``.

    A single map needs no program and is written at once: that is allowed to the process's own user only.
    """
    if id_map.single:
        try:
            for file, text in (
                ("uid_map", "{} {} 1".format(*id_map.uids[0][:2])),
                ("setgroups", "deny"),
                ("gid_map", "{} {} 1".format(*id_map.gids[0][:2])),
            ):
                fd = os.open(f"/proc/{pid}/{file}", os.O_WRONLY | os.O_CLOEXEC)
                try:
                    os.write(fd, text.encode())
                finally:
                    os.close(fd)
        except OSError as error:
            raise HostError(
                f"cannot write the ID map: {error.strerror}", where=f"/proc/{pid}/uid_map"
            ) from error
        return []
    return [
        (
            program,
            _start_map_writer([program, str(pid), *(str(number) for extent in extents for number in extent)]),
        )
        for program, extents in ((NEWUIDMAP, id_map.uids), (NEWGIDMAP, id_map.gids))
    ]


def _start_map_writer(arguments: list[str]) -> int:
    try:
        return os.posix_spawn(arguments[0], arguments, {"PATH": "/usr/bin:/bin"})
    except OSError as error:
        raise HostError(f"cannot run: {error.strerror}", where=arguments[0]) from error


def finish_map_writers(started: list[tuple[str, int]]) -> None:
    """Wait for the map writers; raise ``SubIdsMissing`` if one failed (it has said why on standard error)."""
    failed = [program for program, pid in started if os.waitpid(pid, 0)[1] != 0]
    if failed:
        raise SubIdsMissing(
            "refused to write the ID map of the container's user namespace",
            where=failed[0],
            hint="compare /etc/subuid and /etc/subgid with `usercontainer doctor`",
        )
