"""The narrow door for sandboxed applications: org.usercontainer1.Apps, on a connection of its own.

A connection of its own, since whoever may talk to one name of a connection can reach every object of it by its unique
name. Who calls is decided by the kernel's word, not the caller's: the process that has the connection (for a Flatpak
its D-Bus proxy, which runs in the sandbox) has the sandbox's description in its root directory.
"""

from __future__ import annotations

import os

from usercontainerd.base.errors import NoSuchContainer
from usercontainerd.daemon.call import AccessDenied
from usercontainerd.daemon.limits import MAX_WATCHERS
from usercontainerd.daemon.logbook import describe_container
from usercontainerd.daemon.server import Provider
from usercontainerd.kernel.signals import find_process_number, is_alive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.daemon.call import Call, Options
    from usercontainerd.daemon.container import ContainerObject
    from usercontainerd.daemon.server import Server
    from usercontainerd.daemon.service import Service

NAME = "org.usercontainer1.Apps"
PATH = "/org/usercontainer1/Apps"
_MAX_INFO = 64 * 1024


class ApplicationsObject(Provider):
    """Serves each caller the containers that name it."""

    interface = NAME

    def __init__(self, service: Service, server: Server) -> None:
        super().__init__()
        self._service = service
        self._server = server
        self._known: dict[str, str] = {}
        self._watchers: dict[str, str] = {}
        self.methods = {
            "ListContainers": self._list_containers,
            "GetState": self._get_state,
            "Start": self._start,
            "Stop": self._stop,
            "Watch": self._watch,
        }

    @property
    def watchers(self) -> int:
        """How many applications want to be told."""
        return len(self._watchers)

    async def identify(self, sender: str) -> str:
        """Return the application's ID of a caller. Raises ``AccessDenied`` for one that is in no sandbox."""
        if sender not in self._known:
            # Unique names are never given twice, so the answer holds as long as the caller is there.
            application = await self._find_application(sender)
            if application is None:
                raise AccessDenied(
                    "this is for sandboxed applications",
                    hint="others use org.usercontainer1, which can do everything",
                )
            self._known[sender] = application
            await self._server.watch_client(sender, lambda: self._forget(sender))
            return application
        return self._known[sender]

    async def _find_application(self, sender: str) -> str | None:
        try:
            fd = await self._server.connection.open_process(sender)
        except OSError:
            return None
        try:
            return find_application(fd)
        finally:
            os.close(fd)

    def _forget(self, sender: str) -> None:
        self._known.pop(sender, None)
        self._watchers.pop(sender, None)
        self._service.idle.touch()

    def _find(self, call: Call, application: str, name: str) -> ContainerObject:
        """The container, if the application may know of it: else it is as if there were none."""
        one = self._service.board.containers.get(name)
        if one is not None and application not in one.container.summary.applications:
            self._server.log_refusal(
                call.sender,
                f"{application} must not use container {name}",
                USERCONTAINER_APP=application,
                **describe_container(name),
            )
        if one is None or application not in one.container.summary.applications:
            raise NoSuchContainer(
                f'there is no container "{name[:200]}" for {application}',
                hint=f'its definition has to say allow = ["{application}"] in [desktop]',
            )
        return one

    async def _list_containers(self, call: Call, options: Options) -> list[list[str]]:
        options.finish()
        application = await self.identify(call.sender)
        return [
            [one.container.name, one.container.state, one.status_text]
            for one in self._service.board.containers.values()
            if application in one.container.summary.applications
        ]

    async def _get_state(self, call: Call, name: str, options: Options) -> tuple[str, str]:
        options.finish()
        one = self._find(call, await self.identify(call.sender), name)
        return one.container.state, one.status_text

    async def _start(self, call: Call, name: str, options: Options) -> None:
        application = await self.identify(call.sender)
        await self._find(call, application, name).start(call, options, application=application)

    async def _stop(self, call: Call, name: str, options: Options) -> None:
        application = await self.identify(call.sender)
        await self._find(call, application, name).stop(call, options, application=application)

    async def _watch(self, call: Call, options: Options) -> None:
        options.finish()
        application = await self.identify(call.sender)
        if len(self._watchers) >= MAX_WATCHERS:
            raise AccessDenied("too many applications are watching")
        self._watchers[call.sender] = application

    def report(self, one: ContainerObject) -> None:
        """Tell those that may know, each by itself: a broadcast would tell all of them the names of all containers."""
        for sender, application in self._watchers.items():
            if application in one.container.summary.applications:
                self._server.send_to(
                    sender,
                    PATH,
                    self,
                    "StateChanged",
                    *(one.container.name, one.container.state, one.status_text),
                )


def find_application(pidfd: int) -> str | None:
    """Return the application's ID of the sandbox that a process is in, None if it is in none.

    Its number cannot become another's as long as it is there, which is looked at last.
    """
    pid = find_process_number(pidfd)
    text = _read_info(pid) if pid > 0 else None
    return parse_application(text) if text is not None and is_alive(pidfd) else None


def _read_info(pid: int) -> str | None:
    # The root of the process is opened first: what a path leads to below it is the sandbox's own affair.
    try:
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fd = os.open(".flatpak-info", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=root)
    except OSError:
        return None
    finally:
        os.close(root)
    try:
        return os.read(fd, _MAX_INFO).decode("utf-8", "replace")
    except OSError:
        return None
    finally:
        os.close(fd)


def parse_application(text: str) -> str | None:
    """Return ``name`` of ``[Application]`` in a sandbox's description (flatpak-metadata(5))."""
    section = ""
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("["):
            section = stripped
        elif section == "[Application]":
            key, equals, value = stripped.partition("=")
            if equals and key.strip() == "name":
                return value.strip() or None
    return None
