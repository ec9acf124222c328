"""Signals for a container's first process."""

from __future__ import annotations

import os

from usercontainerd.base.errors import HostError, InvalidArgument, NotRunning
from usercontainerd.definition.vocabulary import SIGNALS, find_signal_number, normalise_signal
from usercontainerd.engine.containers.lifecycle import stop_containers
from usercontainerd.engine.containers.lookup import find_group, get_init
from usercontainerd.engine.containers.pausing import unfreeze_unit
from usercontainerd.kernel.signals import send_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.base.paths import Paths
    from usercontainerd.systemd.manager import Manager

SIGKILL = SIGNALS["SIGKILL"]


def parse_signal(text: str) -> int:
    """Return the number of ``TERM``, ``SIGTERM``, ``15`` or ``RTMIN+3``. Raises ``InvalidArgument``."""
    name = normalise_signal(text)
    if name is None:
        raise InvalidArgument(f'there is no signal "{text}"', hint="see signal(7); write TERM, SIGTERM or 15")
    return find_signal_number(name)


def kill_container(paths: Paths, manager: Manager, name: str, number: int) -> None:
    """Send a signal to a container's first process. After SIGKILL, wait until the unit has stopped.

    What is paused takes other signals when it goes on. Whoever kills a container does not want it to be started again
    by its policy; after any other signal that decides. Raises ``NotRunning``, ``HostError``.
    """
    init = get_init(paths, name)
    try:
        group = find_group(paths, name) if number == SIGKILL else None
        if group is not None:
            unfreeze_unit(manager, name, group)
        if not send_signal(init.fd, number):
            raise NotRunning("the container has just ended", where=name)
    except OSError as error:
        raise HostError(f"cannot send the signal: {error.strerror}", where=name) from error
    finally:
        os.close(init.fd)
    if number == SIGKILL:
        stop_containers(manager, [name])
