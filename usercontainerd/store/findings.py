"""What a check of the store has found, and how each finding is mended."""

from __future__ import annotations

from usercontainerd.base.errors import Busy, UsercontainerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Severity:
    """``DAMAGE``: something that was whole is not. ``LEFTOVER``: nobody needs it. ``NOTE``: no reason to act."""

    DAMAGE = "damage"
    LEFTOVER = "leftover"
    NOTE = "note"


class Finding:
    """One thing, where it is, and what a repair does about it (empty: nothing).

    ``kind`` is a stable word for programs. ``repaired`` becomes true once it is mended, ``problem`` says why that was
    not possible.
    """

    __slots__ = ("_mend", "kind", "problem", "repair", "repaired", "severity", "what", "where")

    def __init__(
        self,
        kind: str,
        severity: str,
        what: str,
        where: str,
        *,
        repair: str = "",
        mend: Callable[[], object] | None = None,
    ) -> None:
        self.kind = kind
        self.severity = severity
        self.what = what
        self.where = where
        self.repair = repair
        self.repaired = False
        self.problem = ""
        self._mend = mend

    @property
    def counts(self) -> bool:
        """True if the store is not whole because of it."""
        return self.severity != Severity.NOTE and not self.repaired

    @property
    def is_mendable(self) -> bool:
        """True if a repair can do something about it."""
        return self._mend is not None or self.kind == "trash"

    def mend(self) -> None:
        """Mend it if it can be mended."""
        if self._mend is None:
            return
        try:
            self._mend()
            self.repaired = True
        except Busy:
            self.problem = "another process is working on it"
        except UsercontainerError as error:
            self.problem = str(error)
        except OSError as error:
            self.problem = error.strerror or str(error)

    def as_dict(self) -> dict[str, str | bool]:
        """For JSON and D-Bus."""
        keys = ("kind", "severity", "what", "where", "repair", "repaired", "problem")
        return {key: getattr(self, key) for key in keys}
