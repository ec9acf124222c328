"""Starting a container and staying with it to its end: lending it descriptors, passing signals on, learning its status.

The container is a unit's like any other, and nobody's child here: see ``usercontainerd.runtime.caller`` for what goes
back and forth. If this process is killed, the container goes on until it ends; its unit cleans up all the same.
"""

from __future__ import annotations

import os
import select

from usercontainerd.base.errors import InUse, RuntimeFailure, SystemdError
from usercontainerd.base.names import unit_name
from usercontainerd.engine.containers.lookup import find_init
from usercontainerd.kernel.descriptors import find_unfit
from usercontainerd.kernel.signals import block_signals, catch_signals, restore_mask, send_signal
from usercontainerd.kernel.trees import make_private_directories
from usercontainerd.runtime import caller
from usercontainerd.runtime.summary import parse_end
from usercontainerd.systemd.manager import UNIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from usercontainerd.base.paths import Paths
    from usercontainerd.engine.containers.lookup import Init
    from usercontainerd.engine.containers.relay import Relay
    from usercontainerd.engine.containers.terminal_relay import TerminalRelay
    from usercontainerd.systemd.manager import Manager

SIGHUP, SIGCONT, SIGWINCH = 1, 18, 28
# HUP INT QUIT USR1 USR2 ALRM TERM, and those for an application's own use.
PASSED_SIGNALS = (1, 2, 3, 10, 12, 14, 15, *range(34, 65))
ENDING_SIGNALS = (1, 2, 3, 15)
_GONE = ("inactive", "failed", None)
_LOOK = 2.0  # seconds between two looks at a unit of which nothing is heard
_REPEAT = 0.05
_MOMENT = 0.002


class Wishes:
    """``streams`` (of 0, 1 and 2) are lent to a container without a terminal; ``interactive``: what is typed goes to
    a terminal; ``waits``: to the end of the container, not only of its start.
    """

    __slots__ = ("interactive", "passes_signals", "streams", "waits")

    def __init__(
        self, streams: tuple[int, ...], *, interactive: bool, passes_signals: bool = True, waits: bool = True
    ) -> None:
        self.streams = streams
        self.interactive = interactive
        self.passes_signals = passes_signals
        self.waits = waits


class Outcome:
    """``status`` is the container's, or docker's for one that did not start; then ``failure`` says why."""

    __slots__ = ("failure", "status")

    def __init__(self, status: int, failure: str = "") -> None:
        self.status = status
        self.failure = failure


class Attachment:
    """One container that is about to be started. Raises ``Busy`` if somebody else is attached."""

    def __init__(self, paths: Paths, name: str, wishes: Wishes, connect: Callable[[], Manager]) -> None:
        self.paths = paths
        self.name = name
        self.unit = unit_name(name)
        self.wishes = wishes
        self.connect = connect
        make_private_directories(paths.bundle(name))
        self.listener = caller.Listener(paths.bundle(name), caller.SOCKET)
        self.lines: dict[int, caller.Line] = {}
        self.lent: dict[int, int] | None = None  # what a container's stream is, here
        self.relay: Relay | None = None
        self.terminal: TerminalRelay | None = None
        self.init: Init | None = None
        self.manager: Manager | None = None
        self.job = ""
        self.job_result = ""
        self.failure = Outcome(0)
        self.ended: Outcome | None = None
        self.interrupted = 0

    def run(self) -> Outcome:
        """Start the container; return when it has ended, or, if that is not waited for, when it runs.

        Raises ``UnitFailure``, ``SystemdError``, ``InUse``.
        """
        signals = catch_signals((*PASSED_SIGNALS, SIGWINCH, SIGCONT))
        try:
            self._start()
            while (outcome := self._find_outcome()) is None:
                self._wait(signals)
            return outcome
        finally:
            if self.terminal is not None:
                self.terminal.leave()
            self._forget_manager()
            self.listener.close()
            if self.relay is not None:
                self.relay.leave()
                self.relay.finish()

    def _start(self) -> None:
        self.manager = self.connect()
        (active,) = self.manager.get_properties([(self.unit, UNIT, "ActiveState")])
        if active not in _GONE:
            raise InUse(
                "the container runs already",
                where=self.name,
                hint=f"`usercontainer logs -f {self.name}` shows what it writes; exec runs a command in it",
            )
        if active == "failed":
            self.manager.reset_failed(self.unit)
        self.job = self.manager.queue_job("StartUnit", self.unit)
        self.job_result = self.manager.wait_job(self.job, timeout=0)

    def _find_outcome(self) -> Outcome | None:
        """What has come of it, None if that is not known yet."""
        if self.terminal is not None and self.terminal.is_lost:
            self._stop()
            return Outcome(128 + SIGHUP)
        if self.interrupted and not self.wishes.passes_signals:
            return Outcome(128 + self.interrupted)
        if self.ended is not None:
            if not self._is_gone():
                return None
            if self.terminal is not None:
                self.terminal.drain()
            return self.ended
        result, self.job_result = self.job_result, ""
        if result == "done":
            # Only the end is waited for now, and that the clean-up tells: systemd may be replaced in the meantime.
            self._forget_manager()
            self.init = find_init(self.paths, self.name)
            return None if self.wishes.waits else Outcome(0)
        return self._explain_failed_job(result) if result else None

    def _explain_failed_job(self, result: str) -> Outcome:
        self._hear_last_words()
        if self.interrupted:
            return Outcome(128 + self.interrupted)
        if self.failure.failure:
            return self.failure
        if self.manager is not None:
            self.manager.check_result(result, self.unit)
        return Outcome(RuntimeFailure.exit_status, "it did not start")

    def _hear_last_words(self) -> None:
        """Read what has been said to us before the job ended."""
        while True:
            poller = select.poll()
            for fd in (self.listener.fileno(), *self.lines):
                poller.register(fd, select.POLLIN)
            ready = poller.poll(0)
            if not ready:
                return
            for fd, _ in ready:
                if fd in self.lines:
                    self._hear(fd)
                else:
                    self._accept()

    def _is_gone(self) -> bool:
        """Wait until the unit has ended, too: False if systemd starts it again."""
        try:
            if self.manager is None:
                self.manager = self.connect()
            while True:
                properties = [(self.unit, UNIT, "ActiveState"), (self.unit, UNIT, "Job")]
                active, job = self.manager.get_properties(properties)
                if active in _GONE and not (job and job[0]):
                    return True
                if active not in ("deactivating", *_GONE):
                    self.ended = None
                    self._forget_manager()
                    return False
                self.manager.bus.wait_signal(lambda _: True, timeout=_REPEAT)
        except SystemdError:
            return True

    def _forget_manager(self) -> None:
        if self.manager is not None:
            self.manager.close()
            self.manager = None

    def _wait(self, signals: int) -> None:
        events = {signals: select.POLLIN, self.listener.fileno(): select.POLLIN}
        events.update(dict.fromkeys(self.lines, select.POLLIN))
        if self.manager is not None:
            events[self.manager.bus.fileno()] = select.POLLIN
        if self.init is not None:
            events[self.init.fd] = select.POLLIN
        if self.terminal is not None:
            events.update(self.terminal.plan_events())
        poller = select.poll()
        for fd, wanted in events.items():
            poller.register(fd, wanted)
        ready = poller.poll(_LOOK * 1000)
        if not ready:
            self._look()
        for fd, happened in ready:
            if fd == signals:
                self._take_signals(os.read(signals, 64))
            elif fd == self.listener.fileno():
                self._accept()
            elif fd in self.lines:
                self._hear(fd)
            elif self.manager is not None and fd == self.manager.bus.fileno():
                self.job_result = self.job_result or self.manager.wait_job(self.job, timeout=_MOMENT)
            elif self.init is not None and fd == self.init.fd:
                os.close(fd)
                self.init = None
            elif self.terminal is not None and fd in (0, self.terminal.master):
                self.terminal.handle(fd, happened)

    def _look(self) -> None:
        """Nothing was heard for a while: is there still something to be heard?"""
        if self.terminal is not None:
            self.terminal.is_hung_up = False  # somebody may have opened it again
        if self.init is None:
            self.init = find_init(self.paths, self.name)
        if self.init is not None or self.manager is not None or self.lines:
            return
        with self.connect() as manager:
            (active,) = manager.get_properties([(self.unit, UNIT, "ActiveState")])
        if active in _GONE and self.ended is None:
            self.ended = Outcome(
                RuntimeFailure.exit_status, "how it ended is not known: its clean-up did not tell"
            )

    def _accept(self) -> None:
        line = self.listener.accept()
        if line.is_own():
            self.lines[line.fileno()] = line
        else:
            line.close()

    def _hear(self, fd: int) -> None:
        """Take what the launcher or the clean-up says."""
        line = self.lines[fd]
        packet, fds = line.receive()
        if not packet:
            del self.lines[fd]
            line.close()
            return
        word, _, rest = packet.partition(b" ")
        if word == caller.STREAMS:
            self.failure = Outcome(0)
            lent = self._lend()
            line.send(" ".join(map(str, lent)).encode() or b"-", tuple(lent.values()))
        elif word == caller.MASTER and fds:
            self._take_terminal(fds[0], line)
        elif word == caller.FAILED:
            status, _, text = rest.decode("utf-8", "replace").partition(" ")
            self.failure = Outcome(int(status) if status.isdecimal() else 125, text)
        elif word == caller.ENDED:
            status_of_run = parse_end(rest.decode("ascii", "replace"))
            if self.failure.failure:
                self.ended = self.failure
            elif status_of_run is not None:
                self.ended = Outcome(status_of_run)

    def _lend(self) -> dict[int, int]:
        """The descriptors for the container: the caller's pipes, and pipes to all else that is the caller's."""
        if self.lent is None:
            streams = self.wishes.streams
            self.lent = dict(zip(streams, streams, strict=True))
            unfit = find_unfit(streams)
            if unfit:
                from usercontainerd.engine.containers.relay import Relay

                # What interrupts the command must not interrupt the relay: the container may have more to say.
                mask = block_signals((*PASSED_SIGNALS, SIGWINCH))
                self.relay = Relay(unfit)
                restore_mask(mask)
                self.lent.update(self.relay.ends)
        return self.lent

    def _take_terminal(self, master: int, line: caller.Line) -> None:
        if not self.wishes.waits:
            os.close(master)
            line.send(b"")
            return
        from usercontainerd.engine.containers.terminal_relay import TerminalRelay

        self.terminal = TerminalRelay(master, interactive=self.wishes.interactive)
        self.terminal.resize()
        self.terminal.enter()
        line.send(caller.SEEN)

    def _take_signals(self, numbers: bytes) -> None:
        for number in numbers:
            if number == SIGWINCH:
                if self.terminal is not None:
                    self.terminal.resize()
            elif number == SIGCONT:
                if self.terminal is not None:
                    self.terminal.resume()
            else:
                self._pass_signal(number)

    def _pass_signal(self, number: int) -> None:
        if number == SIGHUP and self.terminal is not None:
            self.terminal.is_lost = True
        if not self.wishes.passes_signals:
            self.interrupted = number if number in ENDING_SIGNALS else 0
            return
        if self.init is None:
            self.init = find_init(self.paths, self.name)
        if self.init is not None and self.manager is None:
            send_signal(self.init.fd, number)
        elif number in ENDING_SIGNALS:  # it does not run yet
            self.interrupted = number
            self._stop()

    def _stop(self) -> None:
        """Have systemd stop the container; nobody waits for it."""
        try:
            with self.connect() as manager:
                manager.queue_job("StopUnit", self.unit)
        except SystemdError:
            pass
