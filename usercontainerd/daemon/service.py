"""The daemon put together: what its parts need of each other, and its life from the first call to the last."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor

from usercontainerd.base import errors
from usercontainerd.base.errors import HostError, UsercontainerError
from usercontainerd.daemon.applications import PATH as APPLICATIONS_PATH
from usercontainerd.daemon.applications import ApplicationsObject
from usercontainerd.daemon.board import Board
from usercontainerd.daemon.call import LimitExceeded
from usercontainerd.daemon.children import Child, read_lines, start_into_pipe
from usercontainerd.daemon.jobs import Jobs
from usercontainerd.daemon.lifetime import Idle
from usercontainerd.daemon.limits import MAX_PROGRAMS, MAX_PROGRAMS_OF_ONE, Holdings, raise_fd_limit
from usercontainerd.daemon.logbook import CHILD_CRASHED, describe_container, note
from usercontainerd.daemon.manager import ManagerObject
from usercontainerd.daemon.server import OBJECT_MANAGER, Server
from usercontainerd.daemon.streams import Streams
from usercontainerd.daemon.watching import watch_disk, watch_groups, watch_systemd
from usercontainerd.engine.images.local import has_leftovers
from usercontainerd.systemd.manager import Manager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any, TypeVar

    from usercontainerd.daemon.connection import Connection
    from usercontainerd.daemon.container import ContainerObject
    from usercontainerd.daemon.image import ImageObject
    from usercontainerd.daemon.jobs import Job
    from usercontainerd.engine.context import Context

    Result = TypeVar("Result")

NAME = "org.usercontainer1"
ROOT = "/org/usercontainer1"
THREADS = 16  # blocking use cases under way at the same time: they wait for systemd most of the time
# Jobs that change what there is of images.
_CHANGING = ("pull", "load", "import", "commit", "prune", "check")
# Reading the whole board makes one a watcher: such a client wants to hear of changes.
_WATCHING = (f"{OBJECT_MANAGER}.GetManagedObjects",)

logger = logging.getLogger(__name__)


class Service:
    """Everything of one daemon.

    ``applications`` is the connection for sandboxed applications, ``environment`` what its children get.
    """

    def __init__(
        self,
        context: Context,
        connection: Connection,
        environment: dict[str, str],
        applications: Connection,
        descriptions: str,
        *,
        idle_seconds: float,
    ) -> None:
        self.context = context
        self.connection = connection
        self.loop = asyncio.get_running_loop()
        self.null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._environment = environment
        self._fd_limit = raise_fd_limit()
        self._programs = Holdings("programs at once", MAX_PROGRAMS_OF_ONE, MAX_PROGRAMS)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="use-case")
        self._tasks: set[asyncio.Task[Any]] = set()
        self._watchers: dict[str, Callable[[], None]] = {}
        self.server = Server(connection, ROOT, descriptions)
        self._application_server = Server(applications, APPLICATIONS_PATH, descriptions)
        self.applications = ApplicationsObject(self, self._application_server)
        self.idle = Idle(idle_seconds, self._is_needed)
        self.board = Board(self)
        self.server.look_for = self.board.look_for
        self.jobs = Jobs(self)
        self.streams = Streams(self)
        self.manager = ManagerObject(self)
        self.server.on_call = self._note_call
        self._application_server.on_call = lambda _sender, _member: self.idle.touch()

    # Life

    async def start(self) -> None:
        """Read what there is, and answer from now on."""
        self.server.add(ROOT, self.manager)
        self._application_server.add(APPLICATIONS_PATH, self.applications)
        await watch_systemd(self.connection, self.board)
        watch_disk(self.context.paths, self.board, self.loop)
        watch_groups(self.board, self.loop)
        await self.board.refresh_store()
        self.keep(self.loop.create_task(self.board.keep_true()))
        self._sweep()
        self.server.is_public = self._application_server.is_public = True

    def _sweep(self) -> None:
        # When a daemon is killed, systemd kills its jobs: no half of theirs is left, once there is one again.
        if has_leftovers(self.context):
            self._start_operation("sweep", {}, stdin=self.null, stdout=self.null)

    async def finish_calls(self, patience: float) -> None:
        """Answer who has called, but wait for nothing longer than ``patience`` seconds."""
        for server in (self.server, self._application_server):
            await server.finish_calls(patience)

    def close(self) -> None:
        """End what is left."""
        self.jobs.cancel_all()
        for task in self._tasks:
            task.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def describe(self) -> str:
        """What there is, in a few words."""
        return f"containers: {len(self.board.containers)}, images: {len(self.board.images)}"

    def _is_needed(self) -> bool:
        return bool(
            self.server.calls_underway
            or self._application_server.calls_underway
            or self.applications.watchers
            or self.jobs.running
            or self.streams.count
            or self._watchers
            or self._busy()
        )

    def _busy(self) -> int:
        return sum(1 for task in self._tasks if task.get_name() == "use case")

    def _note_call(self, sender: str, member: str) -> None:
        self.idle.touch()
        if member in _WATCHING:
            self.keep(self.loop.create_task(self.add_watcher(sender)))

    async def add_watcher(self, sender: str) -> None:
        """Stay for this client until it leaves the bus."""
        if sender not in self._watchers:
            self._watchers[sender] = lambda: None
            self._watchers[sender] = await self.server.watch_client(
                sender, lambda: self.remove_watcher(sender)
            )

    def remove_watcher(self, sender: str) -> None:
        """This client watches no more."""
        end = self._watchers.pop(sender, None)
        if end is not None:
            end()
        self.idle.touch()

    def keep(self, task: asyncio.Task[Any]) -> None:
        """Hold a task until it is done, and report if it fails."""
        self._tasks.add(task)
        task.add_done_callback(self._drop)

    def _drop(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a task failed", exc_info=task.exception())

    # Work

    async def run(self, function: Callable[[], Result]) -> Result:
        """Run a blocking use case in a thread."""
        return await self.loop.run_in_executor(self._threads, function)

    async def run_with_manager(self, function: Callable[[Manager], Result]) -> Result:
        """The same with a connection to systemd of its own."""

        def work() -> Result:
            address = dict(self.context.environment).get("DBUS_SESSION_BUS_ADDRESS")
            with Manager.connect(self.context.paths.runtime_root, address) as manager:
                return function(manager)

        return await self.run(work)

    def leave_running(self, work: Coroutine[Any, Any, Any], name: str) -> None:
        """Go on with something whose end nobody waits for; how it went shows in the state of container ``name``."""

        async def finish() -> None:
            try:
                await work
            except Exception as error:
                logger.warning("%s", error, extra=note(**describe_container(name)))

        self.keep(self.loop.create_task(finish(), name="use case"))

    def start_command(self, words: list[str], *, stdin: int, stdout: int, stderr: int | None = None) -> Child:
        """Run ``usercontainer WORDS…``."""
        command = [self.context.programs.command, *words]
        return self._start(command, stdin=stdin, stdout=stdout, stderr=stderr)

    def start_operation(
        self, operation: str, request: dict[str, Any], *, stdin: int | None = None
    ) -> tuple[Child, int]:
        """Run one operation of ``engine/job_program.py``; return it and the pipe that its words come from."""
        source = self.null if stdin is None else stdin
        return start_into_pipe(
            lambda pipe: self._start_operation(operation, request, stdin=source, stdout=pipe)
        )

    def _start_operation(self, operation: str, request: dict[str, Any], *, stdin: int, stdout: int) -> Child:
        text = json.dumps({"operation": operation, **request})
        return self._start([f"{self.context.programs.directory}/job", text], stdin=stdin, stdout=stdout)

    def _start(self, command: list[str], *, stdin: int, stdout: int, stderr: int | None = None) -> Child:
        return Child(
            command, self._environment, stdin=stdin, stdout=stdout, stderr=stderr, fd_limit=self._fd_limit
        )

    async def run_program(
        self, operation: str, request: dict[str, Any], *, owner: str, stdin: int | None = None
    ) -> dict[str, Any]:
        """Run one operation of ``engine/job_program.py`` that is no job; return its result or raise its error.

        It is ended when its ``owner`` leaves the bus. Raises ``LimitExceeded``.
        """
        excess = self._programs.find_excess(owner)
        if excess:
            raise LimitExceeded(excess)
        self._programs.take(owner)
        try:
            return await self._run_program(operation, request, stdin=stdin, owner=owner)
        finally:
            self._programs.give_back(owner)

    async def _run_program(
        self, operation: str, request: dict[str, Any], *, owner: str, stdin: int | None
    ) -> dict[str, Any]:
        child, reader = self.start_operation(operation, request, stdin=stdin)
        stop_watching = await self.server.watch_client(owner, child.end)
        child.ended.add_done_callback(lambda _: stop_watching())
        words: list[dict[str, Any]] = []
        await read_lines(reader, lambda line: words.append(json.loads(line)))
        status = await child.ended
        last = words[-1] if words else {}
        if "result" in last:
            result: dict[str, Any] = last["result"]
            return result
        if "error" not in last:
            fields = {"USERCONTAINER_OPERATION": operation, "USERCONTAINER_SENDER": owner}
            logger.error(
                "%s ended with status %d without a word",
                operation,
                status,
                extra=note(CHILD_CRASHED, **fields),
            )
        name, message = last.get("error", ("Failed", f"{operation} ended with status {status}"))
        raise make_error(name, message)

    # Telling

    def report_counts(self) -> None:
        """The manager's counts may have changed."""
        self.server.report_changes(ROOT, self.manager, self.manager.update_counts())

    def report_state(self, one: ContainerObject, before: str) -> None:
        """A container has another state now."""
        self.manager.report_state(one.container, before)
        self.applications.report(one)

    def report_image(self, action: str, one: ImageObject) -> None:
        """An image has come, gone, or has other names."""
        self.manager.report_image(action, one)

    def look_again(self) -> None:
        """Read everything anew, as ``systemctl --user reload`` asks for."""
        self.board.definitions_changed()
        self.board.images_changed()

    async def job_ends(self, job: Job) -> None:
        """A job is done: whoever hears of its end finds what came of it."""
        self.idle.touch()
        if job.operation in _CHANGING:
            await self.board.refresh_store()


def make_error(name: str, message: str) -> UsercontainerError:
    """The error that a program of ours has put into words."""
    kind = getattr(errors, name, HostError)
    if not (isinstance(kind, type) and issubclass(kind, UsercontainerError)):
        kind = HostError
    return kind(message)
