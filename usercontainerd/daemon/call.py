"""One method call: who makes it, what came with it, and the errors that it may be answered with."""

from __future__ import annotations

import fcntl
import os
import stat

from usercontainerd.base.errors import HostError, InvalidArgument, UsercontainerError, printable
from usercontainerd.daemon.connection import Variant

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from usercontainerd.daemon.connection import Message

ERROR_PREFIX = "org.usercontainer1.Error."
MAX_ERROR_TEXT = 4000


class LimitExceeded(UsercontainerError):
    """The caller has too much under way already."""

    name = "LimitExceeded"


class AccessDenied(UsercontainerError):
    """The caller may not do this."""

    name = "AccessDenied"


class BusFault(UsercontainerError):
    """A mistake in the call itself: an error of the D-Bus specification. ``dbus_name`` is the whole name."""

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(what)
        self.dbus_name = f"org.freedesktop.DBus.Error.{kind}"


def find_used_fds(message: Message) -> set[int]:
    """The indexes of the descriptors that a message's arguments name. Pure.

    Those within containers are none: no method takes such.
    """
    types = message.signature_tree.types
    return {value for kind, value in zip(types, message.body, strict=True) if kind.signature == "h"}


def name_error(error: UsercontainerError) -> str:
    """Return the D-Bus name of an error."""
    return error.dbus_name if isinstance(error, BusFault) else ERROR_PREFIX + error.name


def describe_error(error: UsercontainerError) -> str:
    """One line for people, with the hint."""
    return str(error)[:MAX_ERROR_TEXT]


class Options:
    """The trailing ``a{sv}`` of a method, read by name and type; what nobody asked for is refused, not ignored."""

    def __init__(self, values: dict[str, Variant]) -> None:
        self._values = dict(values)

    def take_flag(self, name: str, default: bool = False) -> bool:
        """A boolean. Raises ``InvalidArgument``."""
        value = self._take(name, "b")
        return default if value is None else bool(value)

    def take_text(self, name: str, default: str = "") -> str:
        """A string."""
        value = self._take(name, "s")
        return default if value is None else str(value)

    def take_texts(self, name: str) -> list[str]:
        """An array of strings."""
        value = self._take(name, "as")
        return [] if value is None else [str(each) for each in value]

    def take_number(self, name: str, default: float | None = None) -> float | None:
        """Any number type."""
        value = self._take(name, *"ynqiuxtd")
        return default if value is None else float(value)

    def finish(self) -> None:
        """Raise ``InvalidArgument`` if an option was not taken."""
        for name in sorted(self._values):
            raise InvalidArgument(f"there is no option {printable(name[:80])!r} here")

    def _take(self, name: str, *signatures: str) -> Any:
        variant = self._values.pop(name, None)
        if variant is None:
            return None
        if variant.signature not in signatures:
            raise InvalidArgument(
                f"the option {name!r} is of type {signatures[0]}, not {variant.signature[:40]}"
            )
        return variant.value


class Call:
    """``sender`` is the caller's unique name on the bus. Its descriptors are closed once it has been answered.

    ``weight`` is about how many bytes its arguments occupy.
    """

    def __init__(self, sender: str, fds: list[int], weight: int = 0) -> None:
        self.sender = sender
        self.weight = weight
        self._fds = dict(enumerate(fds))

    @property
    def fd_count(self) -> int:
        """How many descriptors it holds."""
        return len(self._fds)

    def close_surplus(self, used: set[int]) -> None:
        """Close the descriptors whose indexes are not ``used``."""
        for index in self._fds.keys() - used:
            os.close(self._fds.pop(index))

    def find_fd(self, index: int) -> int:
        """The descriptor that an argument of type ``h`` means; it stays the call's. Raises ``InvalidArgument``."""
        if index not in self._fds:
            raise InvalidArgument("a file descriptor is missing in the message")
        fd = self._fds[index]
        # A program that is given such a one for its input fails before it can say so.
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise InvalidArgument("a file descriptor is that of a directory")
        if _read_flags(fd) & os.O_PATH:
            raise InvalidArgument("a file descriptor was opened with O_PATH")
        return fd

    def find_input(self, index: int) -> int:
        """``find_fd`` for what is to be read."""
        fd = self.find_fd(index)
        if _read_flags(fd) & os.O_ACCMODE == os.O_WRONLY:
            raise InvalidArgument("the file descriptor is not open for reading")
        return fd

    def find_output(self, index: int) -> int:
        """``find_fd`` for what is to be written."""
        fd = self.find_fd(index)
        if _read_flags(fd) & os.O_ACCMODE == os.O_RDONLY:
            raise InvalidArgument("the file descriptor is not open for writing")
        return fd

    def close(self) -> None:
        """Close all descriptors that came with it."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()


def _read_flags(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_GETFL)


class Reply:
    """An answer with descriptors: ``body`` has their indexes; they are closed once sent."""

    __slots__ = ("body", "fds")

    def __init__(self, body: list[Any], fds: list[int]) -> None:
        self.body = body
        self.fds = fds


def explain_crash(error: BaseException) -> UsercontainerError:
    """What a caller hears of an error that nobody foresaw: never a traceback, which may hold secrets."""
    if isinstance(error, UsercontainerError):
        return error
    if isinstance(error, OSError) and error.strerror:
        return HostError(error.strerror, where=str(error.filename) if error.filename else None)
    return HostError("an internal error; the journal of usercontainerd.service tells more")
