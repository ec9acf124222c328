"""Who calls the engine, and where that user's things lie: made once by a door, handed to every use case."""

from __future__ import annotations

from usercontainerd.base.paths import Paths
from usercontainerd.base.programs import Programs
from usercontainerd.base.records import dataclass


@dataclass(frozen=True)
class Context:
    """``environment`` is the door's, for what programs that we run need (proxy variables, bus address)."""

    paths: Paths
    programs: Programs
    uid: int
    gid: int
    user: str
    home: str
    environment: tuple[tuple[str, str], ...] = ()


def build_context(environment: dict[str, str], programs: Programs, uid: int, gid: int) -> Context:
    """Build the context of the user ``uid`` from the door's environment."""
    import pwd

    try:
        entry = pwd.getpwuid(uid)
        user, home = entry.pw_name, entry.pw_dir
    except KeyError:
        user, home = str(uid), environment.get("HOME", "/")
    return Context(
        paths=Paths.from_environment(environment, uid),
        programs=programs,
        uid=uid,
        gid=gid,
        user=user,
        home=environment.get("HOME") or home,
        environment=tuple(environment.items()),
    )
