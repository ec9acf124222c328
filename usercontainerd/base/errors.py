"""Errors that say what failed, where, and what to do about it.

Each class has a stable ``name`` (the last part of its D-Bus error name) and a docker-style exit status. They are
raised near the cause; only the doors (command, daemon, generator) turn them into text, a reply or an exit.
"""

from __future__ import annotations


class UsercontainerError(Exception):
    """Base of all errors that a user is meant to read.

    ``what`` is one sentence without a full stop, ``where`` a file, unit, URL or container, ``hint`` what to do.
    """

    name = "Failed"
    exit_status = 125

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        """One line: ``where: what (hint)``; control characters made visible, since parts may come from a registry."""
        text = self.what if self.where is None else f"{self.where}: {self.what}"
        if self.hint is not None:
            text = f"{text} ({self.hint})"
        return printable(text)


def printable(text: str) -> str:
    """Return ``text`` with control characters escaped: untrusted text must not steer a terminal or forge lines."""
    return "".join(
        c if c.isprintable() or c == " " else c.encode("unicode_escape").decode("ascii") for c in text
    )


class InvalidArgument(UsercontainerError):
    """The caller's words are off: an option, a name, a size."""

    name = "InvalidArgument"


class InvalidDefinition(UsercontainerError):
    """A container definition that cannot be used."""

    name = "InvalidDefinition"


class InvalidReference(UsercontainerError):
    """An image reference that does not follow the grammar."""

    name = "InvalidReference"


class InvalidFormat(UsercontainerError):
    """A manifest, configuration, layer or state file that breaks its specification."""

    name = "InvalidFormat"


class NoSuchContainer(UsercontainerError):
    """No container of that name is known."""

    name = "NoSuchContainer"


class NotRunning(UsercontainerError):
    """The container would have to run for this."""

    name = "NotRunning"


class Paused(UsercontainerError):
    """The container stands still, and would have to go on for this."""

    name = "Paused"


class NotPaused(UsercontainerError):
    """The container would have to be paused for this."""

    name = "NotPaused"


class NoSuchImage(UsercontainerError):
    """No image of that name or ID is in the store, or the registry does not have it."""

    name = "NoSuchImage"


class NoSuchFile(UsercontainerError):
    """There is nothing under that path, in a container or on the host."""

    name = "NoSuchFile"


class NoSuchLogin(UsercontainerError):
    """Nobody is logged into the registry."""

    name = "NoSuchLogin"


class AlreadyExists(UsercontainerError):
    """The name is taken."""

    name = "AlreadyExists"


class InUse(UsercontainerError):
    """Something else still needs the object."""

    name = "InUse"


class Busy(UsercontainerError):
    """Another process works on the object just now."""

    name = "Busy"


class Cancelled(UsercontainerError):
    """The caller asked to stop."""

    name = "Cancelled"
    exit_status = 130


class DigestMismatch(UsercontainerError):
    """Bytes do not have the digest that they were promised to have."""

    name = "DigestMismatch"


class PullDenied(UsercontainerError):
    """The registry refuses access, or policy does."""

    name = "PullDenied"


class RegistryError(UsercontainerError):
    """A registry cannot be reached or answers with nonsense."""

    name = "RegistryError"


class SubIdsMissing(UsercontainerError):
    """The user has no subordinate IDs, or newuidmap is missing."""

    name = "SubIdsMissing"


class HostError(UsercontainerError):
    """The host lacks something, or a system call failed."""

    name = "HostError"


class StoreError(UsercontainerError):
    """The store on disk is damaged or full."""

    name = "StoreError"


class RuntimeFailure(UsercontainerError):
    """crun, pasta or another program could not do its part."""

    name = "RuntimeFailure"


class CommandNotExecutable(RuntimeFailure):
    """The command in the container cannot be executed (exit status 126, as in docker)."""

    name = "CommandNotExecutable"
    exit_status = 126


class CommandNotFound(RuntimeFailure):
    """The command does not exist in the container (exit status 127, as in docker)."""

    name = "CommandNotFound"
    exit_status = 127


class SystemdError(UsercontainerError):
    """systemd's user manager cannot be reached or refuses."""

    name = "SystemdError"


def describe_error(error: UsercontainerError) -> dict[str, str | None]:
    """Put an error into words that another process can carry; see ``make_error``."""
    return {"error": type(error).__name__, "what": error.what, "where": error.where, "hint": error.hint}


def make_error(words: dict[str, str | None]) -> UsercontainerError:
    """Make the exception again that ``describe_error`` has put into words."""
    kind = globals().get(str(words["error"]))
    if isinstance(kind, type) and issubclass(kind, UsercontainerError):
        return kind(str(words["what"]), where=words.get("where"), hint=words.get("hint"))
    return HostError(str(words["what"]), where=words.get("where"), hint=words.get("hint"))
