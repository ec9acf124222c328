"""Programs that keep logins: ``docker-credential-NAME`` (github.com/docker/docker-credential-helpers).

One word as argument says what to do (get, store, erase, list); the server's name or the login as JSON is on standard
input, the answer on standard output. So no secret is ever on a command line. What a program says is bounded in size and
time; its standard error is the caller's own, for it may have something to ask.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import time

from usercontainerd.base.errors import HostError, InvalidFormat, RuntimeFailure
from usercontainerd.base.typedjson import parse_json
from usercontainerd.kernel.spawning import spawn, wait_exit
from usercontainerd.registry.authentication import Credentials

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from usercontainerd.base.typedjson import JsonValue

TIMEOUT = 120.0  # seconds: somebody may have to unlock a key ring
MAX_ANSWER = 1024 * 1024
MAX_INPUT = 32 * 1024  # less than a pipe holds: writing never waits
TOKEN_USER = "<token>"  # the user name that makes the secret an identity token  # noqa: S105
_NAME = re.compile(r"[a-z0-9_-]{1,64}\Z", re.ASCII)
_NOT_FOUND = (
    "credentials not found in native keychain",
    "no credentials server URL",
    "no credentials username",
)


class HelperMissing(HostError):
    """There is no such program."""


class CredentialHelper:
    """One program, found on the PATH of ``environment``. Raises ``HelperMissing``, ``RuntimeFailure``."""

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        self.name = name
        self.program = f"docker-credential-{name}"
        self._environment = environment

    def get(self, server: str) -> Credentials | None:
        """Return the login for ``server``, None if it has none."""
        status, answer = self._run("get", server.encode())
        text = answer.decode("utf-8", "replace").strip()
        if status != 0:
            if text in _NOT_FOUND:
                return None
            raise self._fail("get", text)
        document = self._parse(answer)
        try:
            user, secret = document.get("Username").text(""), document.get("Secret").text("")
        except InvalidFormat:
            raise RuntimeFailure("its answer is not what it should be", where=self.program) from None
        if not user and not secret:
            return None
        return Credentials("", "", secret) if user == TOKEN_USER else Credentials(user, secret)

    def store(self, server: str, credentials: Credentials) -> None:
        """Keep a login."""
        document = {"ServerURL": server, "Username": credentials.user, "Secret": credentials.password}
        status, answer = self._run("store", json.dumps(document).encode())
        if status != 0:
            raise self._fail("store", answer.decode("utf-8", "replace").strip())

    def erase(self, server: str) -> bool:
        """Forget a login; False if there was none."""
        status, answer = self._run("erase", server.encode())
        text = answer.decode("utf-8", "replace").strip()
        if status != 0 and text not in _NOT_FOUND:
            raise self._fail("erase", text)
        return status == 0

    def list(self) -> list[str]:
        """Return the servers that it has logins for."""
        status, answer = self._run("list", b"unused")
        if status != 0:
            raise self._fail("list", answer.decode("utf-8", "replace").strip())
        return [server for server, _ in self._parse(answer).items()]

    def _parse(self, answer: bytes) -> JsonValue:
        try:
            return parse_json(answer, "answer", limit=MAX_ANSWER)
        except InvalidFormat:
            # Not a word of it: it may hold the secret.
            raise RuntimeFailure("its answer is not what it should be", where=self.program) from None

    def _fail(self, action: str, text: str) -> RuntimeFailure:
        return RuntimeFailure(f"{action} failed: {text[:300] or 'it does not say why'}", where=self.program)

    def _find_program(self) -> str:
        if not _NAME.match(self.name):
            raise HelperMissing(
                f"{self.name[:80]!r} cannot be the name of a credential helper",
                where=self.program[:100],
                hint="a-z, 0-9, _ and -",
            )
        for directory in self._environment.get("PATH", "").split(":"):
            path = f"{directory}/{self.program}"
            if directory.startswith("/") and os.path.isfile(path) and os.access(path, os.X_OK):
                return path
        raise HelperMissing("the credential helper is not installed", where=self.program)

    def _run(self, action: str, data: bytes) -> tuple[int, bytes]:
        program = self._find_program()
        if len(data) > MAX_INPUT:
            raise RuntimeFailure("the login is too long for it", where=self.program)
        stdin, feed = os.pipe2(os.O_CLOEXEC)
        answers, stdout = os.pipe2(os.O_CLOEXEC)
        try:
            os.write(feed, data)
            os.close(feed)
            pid = spawn(
                (program, action),
                self._environment,
                stdin=stdin,
                stdout=stdout,
                reset_signals=(signal.SIGPIPE,),  # which Python ignores
            )
        except BaseException:
            os.close(answers)
            raise
        finally:
            os.close(stdin)
            os.close(stdout)
        end = time.monotonic() + TIMEOUT
        pidfd = os.pidfd_open(pid)
        try:
            answer = self._read_answer(answers, end)
            # It may have closed its output long before it ends.
            self._wait_readable(pidfd, end)
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            wait_exit(pid)
            raise
        finally:
            os.close(pidfd)
            os.close(answers)
        return wait_exit(pid), answer

    def _read_answer(self, fd: int, end: float) -> bytes:
        answer = bytearray()
        while True:
            self._wait_readable(fd, end)
            chunk = os.read(fd, 65536)
            if not chunk:
                return bytes(answer)
            answer += chunk
            if len(answer) > MAX_ANSWER:
                raise RuntimeFailure(f"its answer is longer than {MAX_ANSWER} bytes", where=self.program)

    def _wait_readable(self, fd: int, end: float) -> None:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        left = end - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise RuntimeFailure(f"no answer within {TIMEOUT:.0f} s", where=self.program)
