"""What takes long: org.usercontainer1.Job. Each job is a child process that reports its progress on a pipe.

A child's lines are JSON objects: ``{"progress": [phase, item, done, total]}``, ``{"notice": text}``, and last
``{"result": {…}}`` or ``{"error": [name, message]}`` (see ``engine/job_program.py``). One that ends without a last word
has failed.
"""

from __future__ import annotations

import json
import logging
import time
from types import MappingProxyType
from typing import NamedTuple

from usercontainerd.base.errors import InUse, UsercontainerError, printable
from usercontainerd.daemon.call import ERROR_PREFIX, MAX_ERROR_TEXT, LimitExceeded
from usercontainerd.daemon.children import Child, read_lines
from usercontainerd.daemon.connection import RemoteError, Variant
from usercontainerd.daemon.limits import (
    MAX_ENDED_JOBS,
    MAX_ENDED_JOBS_OF_ONE,
    MAX_JOBS,
    MAX_JOBS_OF_ONE,
    choose_surplus,
)
from usercontainerd.daemon.logbook import (
    CHILD_CRASHED,
    JOB_BEGUN,
    JOB_CANCELLED,
    JOB_DONE,
    JOB_FAILED,
    describe_container,
    note,
)
from usercontainerd.daemon.server import Provider

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping
    from typing import Any

    from usercontainerd.daemon.call import Call, Options
    from usercontainerd.daemon.service import Service

PATHS = "/org/usercontainer1/job"
KEPT = 60.0  # seconds after its end
INTERVAL = 0.25  # seconds between two changes that clients are told
MAX_ITEMS = 1000
MAX_NOTICES = 100
RUNNING, DONE, FAILED, CANCELLED = "running", "done", "failed", "cancelled"

logger = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """How a job has ended; it has once everybody can see what came of it."""

    state: str
    error_name: str = ""
    message: str = ""
    result: Mapping[str, Variant] = MappingProxyType({})


class Job(Provider):
    """One job. ``on_change`` is called with the job whenever properties have changed."""

    interface = "org.usercontainer1.Job"

    def __init__(self, service: Service, number: int, operation: str, target: str, owner: str) -> None:
        super().__init__()
        self._service = service
        self.path = f"{PATHS}/{number}"
        self.operation = operation
        self.target = target
        self.owner = owner
        self.started = int(time.time())
        self.state = RUNNING
        self.phase = ""
        self._outcome: Outcome | None = None  # until the end of the job is told
        self.error_name = ""
        self.message = ""
        self.result: Mapping[str, Variant] = {}
        self.notices: list[str] = []
        self._items: dict[str, tuple[str, int, int]] = {}
        self._child: Child | None = None
        self._cancelled = False
        self._changed: set[str] = set()
        self._last_report = 0.0
        self._report_later = False
        self.methods = {"Cancel": self._cancel}
        self.properties = {
            "Operation": lambda: self.operation,
            "Target": lambda: self.target,
            "StartedAt": lambda: self.started,
            "State": lambda: self.state,
            "Progress": self._read_progress,
            "Phase": lambda: self.phase,
            "BytesDone": lambda: sum(done for _, done, _ in self._items.values()),
            "BytesTotal": lambda: sum(total for _, _, total in self._items.values()),
            "Items": lambda: [[item, *values] for item, values in self._items.items()],
            "ErrorName": lambda: self.error_name,
            "Message": lambda: self.message,
            "Result": lambda: dict(self.result),
            "Notices": lambda: list(self.notices),
        }

    @property
    def is_running(self) -> bool:
        """True until its end."""
        return self.state == RUNNING

    def _read_progress(self) -> float:
        if self.state == DONE:
            return 1.0
        total = sum(total for _, _, total in self._items.values())
        return sum(done for _, done, _ in self._items.values()) / total if total else -1.0

    async def _cancel(self, _call: Call, options: Options) -> None:
        options.finish()
        self.cancel()

    @property
    def is_cancelled(self) -> bool:
        """True as soon as somebody has wanted its end."""
        return self._cancelled

    def cancel(self) -> None:
        """Have it end; harmless if it has."""
        if self.is_running and self._child is not None:
            self._cancelled = True
            self._child.end()

    # The child's word

    async def follow(self, child: Child, output: int | None, take_status: Callable[[Job, int], None]) -> None:
        """Listen to the child until it has ended. ``take_status`` judges one that has said nothing last."""
        self._child = child
        if output is not None:
            await read_lines(output, self._take_line)
        status = await child.ended
        if self._outcome is None:
            take_status(self, status)
        try:
            await self._service.job_ends(self)
        except (RemoteError, TimeoutError, OSError) as error:
            logger.warning("cannot look at what came of %s: %s", self.describe(), error)
        self._finish()

    def _take_line(self, line: bytes) -> None:
        try:
            word = json.loads(line)
            if "progress" in word:
                self._take_progress(*word["progress"])
            elif "notice" in word:
                self._take_notice(str(word["notice"]))
            elif "result" in word:
                self.succeed(word["result"])
            elif "error" in word:
                self.fail(*word["error"])
        except (ValueError, TypeError, KeyError):
            pass  # a child that is being killed may be cut off in the middle of a line

    def _take_progress(self, phase: str, item: str, done: int, total: int) -> None:
        self.phase = str(phase)
        if (item.startswith("sha") or phase == "copy") and (
            item in self._items or len(self._items) < MAX_ITEMS
        ):
            self._items[item] = (self.phase, max(0, int(done)), max(0, int(total)))
        self._report("Phase", "Progress", "BytesDone", "BytesTotal", "Items")

    def _take_notice(self, text: str) -> None:
        if len(self.notices) < MAX_NOTICES:
            self.notices.append(printable(text)[:MAX_ERROR_TEXT])
            self._report("Notices")

    def succeed(self, result: dict[str, Any]) -> None:
        """Note what came of it."""
        self._outcome = Outcome(DONE, result={name: make_variant(value) for name, value in result.items()})

    def fail(self, name: str, message: str) -> None:
        """Note why it failed."""
        self._outcome = Outcome(
            CANCELLED if self._cancelled else FAILED,
            error_name=f"{ERROR_PREFIX}{'Cancelled' if self._cancelled else name}",
            message=message[:MAX_ERROR_TEXT],
        )

    # Telling

    def describe(self) -> str:
        """What it does, in a few words."""
        return f"{self.operation} {self.target}".rstrip()

    def list_fields(self) -> dict[str, str]:
        """The fields of messages about it."""
        about = {}
        if self.operation in ("commit", "copy-in", "copy-out", "diff", "exec", "export"):
            about = describe_container(self.target)
        elif self.operation in ("pull", "push", "save", "import"):
            about = {"IMAGE_NAME": self.target}
        return {
            **about,
            "USERCONTAINER_OPERATION": self.operation,
            "USERCONTAINER_JOB": self.path,
            "USERCONTAINER_SENDER": self.owner,
        }

    def log_end(self) -> None:
        """Tell the journal how it ended."""
        fields = {**self.list_fields(), "USERCONTAINER_ERROR": self.error_name}
        if self.state == FAILED:
            logger.warning("%s failed: %s", self.describe(), self.message, extra=note(JOB_FAILED, **fields))
        elif self.state == CANCELLED:
            logger.info("%s was cancelled", self.describe(), extra=note(JOB_CANCELLED, **fields))
        else:
            logger.info("%s is done", self.describe(), extra=note(JOB_DONE, **fields))

    def _report(self, *names: str) -> None:
        self._changed.update(names)
        wait = self._last_report + INTERVAL - time.monotonic()
        if wait <= 0:
            self._tell()
        elif not self._report_later:
            self._report_later = True
            self._service.loop.call_later(wait, self._tell)

    def _tell(self) -> None:
        self._report_later = False
        names, self._changed = sorted(self._changed), set()
        self._last_report = time.monotonic()
        if names and self._service.server.has(self.path):
            self._service.server.report_changes(self.path, self, names)

    def _finish(self) -> None:
        if self._outcome is not None:
            self.state, self.error_name = self._outcome.state, self._outcome.error_name
            self.message, self.result = self._outcome.message, self._outcome.result
        self._changed.update(("State", "Progress", "Phase", "ErrorName", "Message", "Result", "Items"))
        self._tell()
        self._service.server.emit(self.path, self, "Completed", self.state, self.error_name, self.message)


class Jobs:
    """All jobs that run or have just ended."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._jobs: dict[str, Job] = {}
        self._ended: dict[str, asyncio.TimerHandle] = {}  # those of them that have, the oldest first
        # No job of a daemon before this one had such a number: a path never comes to mean another job.
        self._next = time.time_ns() // 1_000_000

    @property
    def running(self) -> int:
        """How many have not ended."""
        return sum(job.is_running for job in self._jobs.values())

    def _check_limits(self, sender: str) -> None:
        if self.running >= MAX_JOBS:
            raise LimitExceeded(f"more than {MAX_JOBS} jobs are running")
        if sum(job.is_running and job.owner == sender for job in self._jobs.values()) >= MAX_JOBS_OF_ONE:
            raise LimitExceeded(f"more than {MAX_JOBS_OF_ONE} jobs of one client are running")

    def _add(self, operation: str, target: str, sender: str) -> Job:
        job = Job(self._service, self._next, operation, target, sender)
        self._next += 1
        self._jobs[job.path] = job
        self._service.server.add(job.path, job)
        self._service.report_counts()
        logger.info("%s begins", job.describe(), extra=note(JOB_BEGUN, **job.list_fields()))
        return job

    async def start(
        self,
        call: Call,
        operation: str,
        target: str,
        request: dict[str, Any],
        *,
        reads: int | None = None,
        writes: int | None = None,
    ) -> str:
        """Start a job of ``engine/job_program.py`` for whoever calls; return its path.

        ``reads`` or ``writes`` is the argument of type ``h`` that names what it has as descriptor 0. Raises
        ``InvalidArgument`` or ``LimitExceeded``.
        """
        fd = None
        if reads is not None:
            fd = call.find_input(reads)
        elif writes is not None:
            fd = call.find_output(writes)
        self._check_limits(call.sender)
        child, reader = self._service.start_operation(operation, request, stdin=fd)
        job = self._add(operation, target, call.sender)
        self._service.keep(self._service.loop.create_task(self._run(job, child, reader, judge_silence)))
        return job.path

    async def start_exec(self, sender: str, name: str, words: list[str], fds: tuple[int, int, int]) -> str:
        """Run a command in a container, and end it when the caller leaves the bus; return the job's path."""
        self._check_limits(sender)
        child = self._service.start_command(words, stdin=fds[0], stdout=fds[1], stderr=fds[2])
        job = self._add("exec", name, sender)
        end_watch = await self._service.server.watch_client(sender, job.cancel)
        child.ended.add_done_callback(lambda _: end_watch())
        self._service.keep(self._service.loop.create_task(self._run(job, child, None, judge_exec)))
        return job.path

    async def _run(
        self, job: Job, child: Child, output: int | None, take_status: Callable[[Job, int], None]
    ) -> None:
        await job.follow(child, output, take_status)
        job.log_end()
        self._service.report_counts()
        self._ended[job.path] = self._service.loop.call_later(KEPT, self._forget, job.path)
        owners = [(path, self._jobs[path].owner) for path in self._ended]
        for path in choose_surplus(owners, MAX_ENDED_JOBS_OF_ONE, MAX_ENDED_JOBS):
            self._forget(path)

    def _forget(self, path: str) -> None:
        self._ended.pop(path).cancel()
        del self._jobs[path]
        self._service.server.remove(path)

    def cancel_all(self) -> None:
        """The daemon leaves: nothing of its children stays."""
        for job in self._jobs.values():
            job.cancel()

    def require_quiet(self, operation: str, target: str) -> None:
        """Raise ``InUse`` if such a job is running already."""
        for job in self._jobs.values():
            if job.is_running and (job.operation, job.target) == (operation, target):
                raise InUse(f"a job does that already: {job.path}", where=target)


def judge_silence(job: Job, status: int) -> None:
    """A program of ours that ended without a last word."""
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    if not job.is_cancelled:
        fields = job.list_fields()
        logger.error("the process of %s %s", job.describe(), how, extra=note(CHILD_CRASHED, **fields))
    job.fail("Failed", f"the process that did it {how}; see journalctl --user -u usercontainerd")


def judge_exec(job: Job, status: int) -> None:
    """A command in a container has ended: any status of its own is a result."""
    job.succeed({"exit-status": status if status >= 0 else 128 - status})


def make_variant(value: Any) -> Variant:
    """A plain value as the variant that it is most naturally."""
    if isinstance(value, bool):
        return Variant("b", value)
    if isinstance(value, int):
        return Variant("x", value)
    if isinstance(value, float):
        return Variant("d", value)
    if isinstance(value, str):
        return Variant("s", value)
    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        return Variant("as", list(value))
    if isinstance(value, list | tuple):
        return Variant("av", [make_variant(each) for each in value])
    if isinstance(value, dict):
        return Variant("a{sv}", {str(key): make_variant(each) for key, each in value.items()})
    raise UsercontainerError(f"cannot be sent: {type(value).__name__}")
