"""Who runs in the container: ``USER[:GROUP]`` looked up in the image's own passwd(5) and group(5). Pure.

Both files come from an image: they are data, of any shape, and never consulted on the host.
"""

from __future__ import annotations

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.base.records import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_ID = 2**32 - 2  # (uid_t)-1 means "unchanged" to the kernel


@dataclass(frozen=True)
class Identity:
    """The container's process, in the container's own IDs, and that user's home."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/"


@dataclass(frozen=True)
class _User:
    name: str
    uid: int
    gid: int
    home: str


def _parse_id(text: str) -> int | None:
    if not (text.isascii() and text.isdecimal()) or len(text) > 10:
        return None
    number = int(text)
    return number if number <= MAX_ID else None


def _parse_users(passwd: str) -> Iterator[_User]:
    for line in passwd.splitlines():
        fields = line.split(":")
        if len(fields) >= 6:
            uid, gid = _parse_id(fields[2]), _parse_id(fields[3])
            if uid is not None and gid is not None:
                yield _User(fields[0], uid, gid, fields[5])


def _parse_groups(group: str) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    for line in group.splitlines():
        fields = line.split(":")
        gid = _parse_id(fields[2]) if len(fields) >= 3 else None
        if gid is not None:
            yield fields[0], gid, tuple(fields[3].split(",")) if len(fields) > 3 else ()


def resolve_identity(wanted: str, passwd: str, group: str, *, where: str) -> Identity:
    """Return who ``wanted`` is (empty: root), by docker's rules.

    A number needs no entry; a name does. Supplementary groups come from group(5) unless a group is named; the
    primary one is among them, or its process could drop it to get past a file that denies that very group
    (CVE-2022-2989).
    Raises ``InvalidArgument`` naming ``where`` for an unknown name.
    """
    user_text, colon, group_text = wanted.partition(":")
    number = 0 if user_text == "" else _parse_id(user_text)
    users = tuple(_parse_users(passwd))
    # A name of digits is a number to docker, unless passwd has it as a name.
    entry = next((user for user in users if user.name == user_text), None) or next(
        (user for user in users if number is not None and user.uid == number), None
    )
    if entry is None and number is None:
        raise InvalidArgument(f'the image has no user "{user_text}" in /etc/passwd', where=where)
    uid = entry.uid if entry is not None else number or 0
    home = entry.home if entry is not None and entry.home.startswith("/") else "/"
    if colon and group_text:
        gid = _resolve_group(group_text, group, where)
        return Identity(uid, gid, (gid,), home)
    gid = entry.gid if entry is not None else 0
    listed = {
        found for _, found, members in _parse_groups(group) if entry is not None and entry.name in members
    }
    own = (gid,) if wanted else ()
    return Identity(uid, gid, (*own, *sorted(listed - {gid})[:1000]), home)


def _resolve_group(text: str, group: str, where: str) -> int:
    for name, gid, _ in _parse_groups(group):
        if name == text:
            return gid
    number = _parse_id(text)
    if number is None:
        raise InvalidArgument(f'the image has no group "{text}" in /etc/group', where=where)
    return number
