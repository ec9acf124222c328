"""One call of one verb: what it was told, and where the caller's things lie."""

from __future__ import annotations

import os

from usercontainerd.base.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.cli.options import Options
    from usercontainerd.engine.context import Context
    from usercontainerd.systemd.manager import Manager


class Call:
    """``verb`` is the name as it was typed; ``environment`` the process's own."""

    __slots__ = ("environment", "options", "paths", "verb")

    def __init__(self, verb: str, options: Options, environment: dict[str, str]) -> None:
        self.verb = verb
        self.options = options
        if not environment.get("HOME"):
            environment = {**environment, "HOME": find_home(os.getuid())}
        self.environment = environment
        self.paths = Paths.from_environment(environment, os.getuid())

    @property
    def words(self) -> list[str]:
        """The arguments."""
        return self.options.words

    def connect(self) -> Manager:
        """Connect to systemd's user manager."""
        from usercontainerd.systemd.manager import Manager

        return Manager.connect(self.paths.runtime_root, self.environment.get("DBUS_SESSION_BUS_ADDRESS"))

    def find_manager(self) -> Manager | None:
        """``connect``, or None if no container is known or systemd does not answer: for what can do without."""
        from usercontainerd.base.errors import SystemdError
        from usercontainerd.engine.containers.lookup import list_known

        try:
            return self.connect() if list_known(self.paths) else None
        except SystemdError:
            return None

    def context(self, *, complete: bool = True) -> Context:
        """Build what the larger use cases need; the fast ones do with ``paths``.

        Raises ``HostError`` if programs are missing and ``complete`` wants them.
        """
        from usercontainerd.base.programs import find_programs
        from usercontainerd.engine.context import build_context

        programs = find_programs()
        if complete and not os.path.exists(programs.launch):
            from usercontainerd.base.errors import HostError

            raise HostError(
                "this copy's programs are missing", where=programs.directory, hint="run `usercontainer setup`"
            )
        return build_context(self.environment, programs, os.getuid(), os.getgid())


def find_home(uid: int) -> str:
    """The user's home directory by the system's own record."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        return "/"
