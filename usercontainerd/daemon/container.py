"""One container on the bus: org.usercontainer1.Container."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import struct
import termios

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.base.names import unit_name
from usercontainerd.daemon.call import Reply
from usercontainerd.daemon.connection import Variant
from usercontainerd.daemon.logbook import CONTAINER_ASKED, describe_container, note
from usercontainerd.daemon.server import Provider
from usercontainerd.engine.containers.autostart import disable_autostart, enable_autostart
from usercontainerd.engine.containers.killing import kill_container, parse_signal
from usercontainerd.engine.containers.lifecycle import (
    remove_container,
    restart_container,
    start_container,
    stop_containers,
)
from usercontainerd.engine.containers.listing import State
from usercontainerd.engine.containers.lookup import find_init
from usercontainerd.engine.containers.pausing import pause_container, resume_container
from usercontainerd.runtime.summary import describe_exit, parse_ports
from usercontainerd.systemd.bus import escape_object_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from usercontainerd.daemon.call import Call, Options
    from usercontainerd.daemon.service import Service
    from usercontainerd.engine.containers.listing import Container
    from usercontainerd.systemd.manager import Manager

PATHS = "/org/usercontainer1/container"

logger = logging.getLogger(__name__)


class ContainerObject(Provider):
    """``status_text`` is what the unit says of itself while it starts, or after it failed to.

    ``autostart``: it starts with the user's session.
    """

    interface = "org.usercontainer1.Container"

    def __init__(self, service: Service, container: Container, status_text: str, autostart: bool) -> None:
        super().__init__()
        self._service = service
        self.container = container
        self.status_text = status_text
        self._failure = ""
        self._note_failure()
        self.autostart = autostart
        self.path = f"{PATHS}/{escape_object_path(container.name)}"
        self.methods = {
            "Start": self._start,
            "Stop": self._stop,
            "Restart": self._restart,
            "Kill": self._kill,
            "Pause": self._pause,
            "Resume": self._resume,
            "Remove": self._remove,
            "SetAutostart": self._set_autostart,
            "Update": self._update,
            "Logs": self._logs,
            "Exec": self._exec,
            "OpenPTY": self._open_terminal,
            "Export": self._export,
            "CopyIn": self._copy_in,
            "CopyOut": self._copy_out,
            "Commit": self._commit,
            "Diff": self._diff,
            "Inspect": self._inspect,
            "Top": self._top,
            "GetStats": self._get_stats,
            "RunHealthcheck": self._run_healthcheck,
        }
        self.properties = {
            "Id": lambda: self.container.id,
            "Name": lambda: self.container.name,
            "Unit": lambda: unit_name(self.container.name),
            "State": lambda: self.container.state,
            "Health": lambda: self.container.health,
            "StatusText": lambda: self.status_text,
            "LastError": self._read_last_error,
            "Image": lambda: self.container.summary.image,
            "ImageId": lambda: self.container.summary.image_id,
            "UpdateAvailable": lambda: self._service.board.newer.has_newer(self.container.summary),
            "Command": lambda: self.container.summary.command,
            "ExitStatus": self._read_exit_status,
            "MainPID": self._read_main_pid,
            "StartedAt": self._read_started,
            "FinishedAt": lambda: int(self.container.exit.finished) if self.container.exit else 0,
            "CreatedAt": lambda: int(self.container.created),
            "Ports": lambda: [list(port) for port in parse_ports(self.container.summary.ports)],
            "Networks": lambda: [self.container.summary.network] if self.container.summary.network else [],
            "Mounts": lambda: list(self.container.summary.mounts),
            "Labels": lambda: dict(self.container.summary.labels),
            "Definition": lambda: self.container.summary.definition,
            "Autostart": lambda: self.autostart,
        }
        self.find_changes()

    # Properties

    def _read_exit_status(self) -> int:
        record = self.container.exit
        return -1 if record is None or self.container.is_alive else record.status

    def _read_main_pid(self) -> int:
        if not self.container.is_alive:
            return 0
        init = find_init(self._service.context.paths, self.container.name)
        if init is None:
            return 0
        os.close(init.fd)
        return init.pid

    def _read_started(self) -> int:
        record = self.container.exit
        return int(self.container.started or (record.started if record is not None else 0))

    def _read_last_error(self) -> str:
        if self.container.state == State.INVALID:
            return self.container.summary.problem
        if self.container.state == State.EXITED and self.container.exit is not None:
            return describe_exit(self.container.exit)
        return self.status_text if self.container.state == State.FAILED else self._failure

    def _note_failure(self) -> None:
        """Keep why systemd starts it again by itself until it runs: the unit's own word goes with the next start."""
        state, record = self.container.state, self.container.exit
        if state == State.RESTARTING:
            if record is not None and record.started:
                self.status_text = describe_exit(record)
            self._failure = self.status_text
        elif state not in (State.STARTING, State.STOPPING):
            self._failure = ""

    def update(self, container: Container, status_text: str, autostart: bool) -> list[str]:
        """Take what was read anew; return the properties that changed."""
        self.container, self.status_text = container, status_text
        self._note_failure()
        self.autostart = autostart
        return self.find_changes()

    # Methods

    async def _start(self, call: Call, options: Options) -> None:
        await self.start(call, options)

    async def _stop(self, call: Call, options: Options) -> None:
        await self.stop(call, options, timeout=options.take_number("timeout"))

    async def _restart(self, call: Call, options: Options) -> None:
        timeout = options.take_number("timeout")
        await self._run(
            "restart",
            call,
            options,
            lambda manager: restart_container(manager, self.container.name, timeout=timeout),
        )

    async def start(self, call: Call, options: Options, *, application: str = "") -> None:
        """Start it for a client, or for a sandboxed ``application``."""
        name = self.container.name
        await self._run(
            "start", call, options, lambda manager: start_container(manager, name), application=application
        )

    async def stop(
        self, call: Call, options: Options, *, timeout: float | None = None, application: str = ""
    ) -> None:
        """Stop it; what still runs after ``timeout`` seconds is killed."""
        names = [self.container.name]
        await self._run(
            "stop",
            call,
            options,
            lambda manager: stop_containers(manager, names, timeout=timeout),
            application=application,
        )

    async def _run(
        self,
        what: str,
        call: Call,
        options: Options,
        action: Callable[[Manager], None],
        *,
        application: str = "",
    ) -> None:
        """Do something that takes long, in a thread; the caller need not wait for it."""
        wait = options.take_flag("wait", True)
        options.finish()
        self._log(what, call, application)
        work = self._service.run_with_manager(action)
        if wait:
            try:
                await work
            finally:
                # Whoever asks after the answer finds what has become of it.
                await self._service.board.refresh({self.container.name})
        else:
            self._service.leave_running(work, self.container.name)

    def _log(self, what: str, call: Call, application: str = "") -> None:
        """Tell the journal, and with it the unit's log, who wanted something."""
        fields = {
            **describe_container(self.container.name),
            "USERCONTAINER_OPERATION": what,
            "USERCONTAINER_SENDER": call.sender,
            "USERCONTAINER_APP": application,
        }
        who = f"{application} ({call.sender})" if application else call.sender
        logger.info(
            "%s of container %s for %s",
            *(what, self.container.name, who),
            extra=note(CONTAINER_ASKED, **fields),
        )

    async def _remove(self, call: Call, options: Options) -> None:
        force = options.take_flag("force")
        options.finish()
        self._log("remove", call)
        context = self._service.context
        await self._service.run_with_manager(
            lambda manager: remove_container(context, manager, self.container.name, force=force)
        )
        await self._service.board.refresh({self.container.name})

    async def _kill(self, call: Call, signal: str, options: Options) -> None:
        options.finish()
        number = parse_signal(signal)
        paths, name = self._service.context.paths, self.container.name
        await self._act("kill", call, lambda manager: kill_container(paths, manager, name, number))

    async def _pause(self, call: Call, options: Options) -> None:
        options.finish()
        await self._act("pause", call, lambda manager: pause_container(manager, self.container.name))

    async def _resume(self, call: Call, options: Options) -> None:
        options.finish()
        await self._act("unpause", call, lambda manager: resume_container(manager, self.container.name))

    async def _act(self, what: str, call: Call, action: Callable[[Manager], None]) -> None:
        """Do something, in a thread. Whoever asks after the answer finds what has become of the container."""
        self._log(what, call)
        try:
            await self._service.run_with_manager(action)
        finally:
            await self._service.board.refresh({self.container.name})

    async def _set_autostart(self, call: Call, enabled: bool, options: Options) -> None:
        target = options.take_text("target")
        options.finish()
        if target and not enabled:
            raise InvalidArgument("the option target is for what is to start")
        self._log("enable" if enabled else "disable", call)
        context, name = self._service.context, self.container.name
        if enabled:
            await self._service.run_with_manager(
                lambda manager: enable_autostart(context, manager, name, target=target)
            )
        else:
            await self._service.run_with_manager(lambda manager: disable_autostart(context, manager, name))
        await self._service.board.refresh({name})

    async def _update(self, call: Call, settings: dict[str, Any], options: Options) -> None:
        lifted = options.take_texts("unlimited")
        options.finish()
        from usercontainerd.daemon import definitions

        context, name, table = self._service.context, self.container.name, definitions.unwrap(settings)
        await self._act(
            "update", call, lambda manager: definitions.update(context, manager, name, table, lifted)
        )

    async def _inspect(self, _call: Call, options: Options) -> str:
        options.finish()
        context = self._service.context

        def inspect(manager: Manager) -> str:
            from usercontainerd.engine.containers.inspection import inspect_container

            return json.dumps(inspect_container(context, manager, self.container.name), default=str)

        return await self._service.run_with_manager(inspect)

    async def _top(
        self, _call: Call, columns: list[str], options: Options
    ) -> tuple[list[str], list[list[str]]]:
        options.finish()
        from usercontainerd.engine.containers.processes import COLUMNS, list_processes, parse_columns

        chosen = parse_columns(columns)
        paths, name = self._service.context.paths, self.container.name
        rows = await self._service.run(lambda: list_processes(paths, name, chosen))
        # What a process says of itself may be no text at all.
        shown = [[cell.encode("utf-8", "replace").decode().replace("\0", "") for cell in row] for row in rows]
        return [COLUMNS[column][0] for column in chosen], shown

    async def _get_stats(self, _call: Call, options: Options) -> dict[str, Variant]:
        options.finish()
        from usercontainerd.engine.containers.usage import read_usage

        paths, name = self._service.context.paths, self.container.name
        usage = await self._service.run(lambda: read_usage(paths, name))
        figures = {
            "memory": usage.memory,
            "memory-limit": usage.limit,
            "tasks": usage.tasks,
            "received": usage.received,
            "sent": usage.sent,
            "read": usage.read,
            "written": usage.written,
        }
        known = {key: Variant("t", value) for key, value in figures.items() if value is not None}
        return {"cpu-time": Variant("d", usage.cpu), "running-time": Variant("d", usage.lived), **known}

    async def _run_healthcheck(self, call: Call, options: Options) -> tuple[bool, int, str]:
        options.finish()
        from usercontainerd.engine.containers.health_runs import run_healthcheck

        self._log("health check", call)
        paths, name = self._service.context.paths, self.container.name
        state = await self._service.run_with_manager(lambda manager: run_healthcheck(paths, manager, name))
        await self._service.board.refresh({name})
        last = state.log[-1]
        return last.status == 0, last.status, last.output

    async def _export(self, call: Call, output: int, options: Options) -> str:
        options.finish()
        name = self.container.name
        return await self._service.jobs.start(call, "export", name, {"name": name}, writes=output)

    async def _copy_in(self, call: Call, archive: int, path: str, options: Options) -> str:
        request = {
            "name": self.container.name,
            "path": path,
            "exact": options.take_flag("archive"),
            "overwrite": options.take_flag("overwrite"),
        }
        options.finish()
        return await self._service.jobs.start(call, "copy-in", self.container.name, request, reads=archive)

    async def _copy_out(self, call: Call, path: str, output: int, options: Options) -> str:
        options.finish()
        request = {"name": self.container.name, "path": path}
        return await self._service.jobs.start(call, "copy-out", self.container.name, request, writes=output)

    async def _commit(self, call: Call, reference: str, options: Options) -> str:
        request = {
            "name": self.container.name,
            "reference": reference,
            "changes": options.take_texts("changes"),
            "author": options.take_text("author"),
            "message": options.take_text("message"),
            "format": options.take_text("format"),
            "pause": options.take_flag("pause", True),
            "squash": options.take_flag("squash"),
        }
        options.finish()
        return await self._service.jobs.start(call, "commit", self.container.name, request)

    async def _diff(self, call: Call, output: int, options: Options) -> str:
        options.finish()
        name = self.container.name
        return await self._service.jobs.start(call, "diff", name, {"name": name}, writes=output)

    async def _logs(self, call: Call, options: Options) -> Reply:
        words = ["logs"]
        if options.take_flag("follow"):
            words.append("--follow")
        if options.take_flag("timestamps"):
            words.append("--timestamps")
        lines = options.take_number("lines")
        if lines is not None:
            words.append(f"--tail={int(lines)}")
        for name in ("since", "until"):
            text = options.take_text(name)
            if text:
                words.append(f"--{name}={text}")
        options.finish()
        fd = await self._service.streams.open_output(call.sender, [*words, "--", self.container.name])
        return Reply([0], [fd])

    async def _exec(  # noqa: PLR0917 - the bus gives them in a row
        self, call: Call, command: list[str], stdin: int, stdout: int, stderr: int, options: Options
    ) -> str:
        words = plan_exec(self.container.name, command, options)
        fds = (call.find_fd(stdin), call.find_fd(stdout), call.find_fd(stderr))
        return await self._service.jobs.start_exec(call.sender, self.container.name, words, fds)

    async def _open_terminal(self, call: Call, command: list[str], options: Options) -> Reply:
        size = (int(options.take_number("rows") or 24), int(options.take_number("columns") or 80))
        words = plan_exec(self.container.name, command, options, terminal=True)
        outer, inner = open_terminal(*size)
        try:
            path = await self._service.jobs.start_exec(
                call.sender, self.container.name, words, (inner, inner, inner)
            )
        except BaseException:
            os.close(outer)
            raise
        finally:
            os.close(inner)
        return Reply([0, path], [outer])


def plan_exec(name: str, command: list[str], options: Options, *, terminal: bool = False) -> list[str]:
    """The words of ``usercontainer exec`` that run ``command``. Raises ``InvalidArgument``."""
    if not command:
        raise InvalidArgument("there is no command to run")
    words = ["exec", "--interactive"]
    if terminal:
        words.append("--tty")
    for option, key in (("user", "user"), ("working-directory", "workdir")):
        text = options.take_text(option)
        if text:
            words.append(f"--{key}={text}")
    words += [f"--env={each}" for each in options.take_texts("environment")]
    options.finish()
    return [*words, "--", name, *command]


def open_terminal(rows: int, columns: int) -> tuple[int, int]:
    """Open a pseudo-terminal of that size: (the end for the caller, the end for the command)."""
    outer, inner = os.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", rows & 0xFFFF, columns & 0xFFFF, 0, 0))
    return outer, inner
