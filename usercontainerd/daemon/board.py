"""The board: which containers and images there are, as objects on the bus, kept true by what systemd and the disk tell.

Nothing here is remembered across runs and nothing polls: the whole is read once at the start, and again in part
whenever a unit of a container changes its state or a file of ours appears, changes or goes.
"""

from __future__ import annotations

import asyncio
import logging
import os

from usercontainerd.base.errors import StoreError
from usercontainerd.base.names import container_name, is_container_name, unit_name
from usercontainerd.daemon.connection import RemoteError
from usercontainerd.daemon.container import PATHS, ContainerObject
from usercontainerd.daemon.image import PATHS as IMAGE_PATHS
from usercontainerd.daemon.image import ImageObject
from usercontainerd.engine.containers.autostart import is_autostarted, list_autostarted
from usercontainerd.engine.containers.listing import UNITS, State, list_containers, read_container
from usercontainerd.engine.containers.lookup import is_known
from usercontainerd.engine.images.local import is_stored, list_images
from usercontainerd.engine.images.newer import NewerImages
from usercontainerd.kernel.cgroups import is_frozen
from usercontainerd.systemd.manager import MANAGER, NAME, PATH, SERVICE, UnitStatus, unit_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from usercontainerd.daemon.service import Service
    from usercontainerd.engine.containers.listing import Container
    from usercontainerd.runtime.summary import Summary

SETTLE = 0.02  # seconds that changes are collected before they are looked at
PROPERTIES = "org.freedesktop.DBus.Properties"
_UNIT_PREFIX = f"{PATH}/unit/"

logger = logging.getLogger(__name__)


class Board:
    """All containers and images; ``service`` is what they need of the daemon."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._paths = service.context.paths
        self.containers: dict[str, ContainerObject] = {}
        self.images: dict[str, ImageObject] = {}
        self.images_error: StoreError | None = None
        self.newer = NewerImages(service.context)
        self._dirty: set[str] = set()
        self._all_dirty = False
        self._images_dirty = False
        self._wake = asyncio.Event()
        # Told of the cgroup of each container that runs; see ``watching.watch_groups``.
        self.follow_group: Callable[[str], bool] = lambda _group: False
        # One reads after the other: what was read first must not be shown last.
        self._reading = asyncio.Lock()

    # Reading

    def _summarise(self, name: str) -> Summary:
        from usercontainerd.engine.containers.summaries import (
            summarise_definition,  # what reads TOML: most are known
        )

        return summarise_definition(self._service.context, name)

    async def _ask_systemd(self, member: str, signature: str, *arguments: object) -> list[UnitStatus]:
        answer = await self._service.connection.ask(NAME, PATH, MANAGER, member, signature, list(arguments))
        return [UnitStatus(tuple(fields)) for fields in answer[0]]

    async def refresh_all(self) -> None:
        """Read all containers anew."""
        async with self._reading:
            await self._read_all()

    async def _read_all(self) -> None:
        units = {}
        for unit in await self._ask_systemd("ListUnitsByPatterns", "asas", [], [UNITS]):
            name = container_name(unit.name)
            if name is not None:
                units[name] = unit
        found = list_containers(self._paths, units, self._summarise, everything=True)
        autostarted = list_autostarted(self._paths)
        for container in found:
            await self._show(container, container.name in autostarted)
        for name in set(self.containers) - {container.name for container in found}:
            self._forget(name)

    async def refresh(self, names: set[str]) -> None:
        """Read some containers anew."""
        async with self._reading:
            await self._read_some(names)

    async def look_for(self, path: str) -> None:
        """See whether there is by now a container or an image whose object is at ``path``; we may be told soon."""
        digits = path.removeprefix(f"{IMAGE_PATHS}/")
        if digits != path and is_stored(self._service.context, digits):
            self.refresh_images()
        if not path.startswith(f"{PATHS}/"):
            return
        name = unescape_element(path.removeprefix(f"{PATHS}/"))
        if name is not None and is_container_name(name) and is_known(self._paths, name):
            await self.refresh({name})

    async def _read_some(self, names: set[str]) -> None:
        statuses = await self._ask_systemd("ListUnitsByNames", "as", [unit_name(name) for name in names])
        units = {container_name(unit.name): unit for unit in statuses if unit.load != "not-found"}
        for name in names:
            unit = units.get(name)
            idle = unit is None or unit.active in ("inactive", "failed")
            if idle and not is_known(self._paths, name):
                self._forget(name)
            else:
                container = read_container(self._paths, name, unit, self._summarise)
                await self._show(container, is_autostarted(self._paths, name))

    async def _show(self, container: Container, autostart: bool) -> None:
        text = ""
        group = container.group
        if (
            group is not None
            and self.follow_group(group)
            and is_frozen(group) != (container.state == State.PAUSED)
        ):
            self._note(container.name)  # between the look at it and the watch
        if container.state in (State.STARTING, State.FAILED, State.RESTARTING):
            text = await self._read_status_text(container.name)
        one = self.containers.get(container.name)
        if one is None:
            one = self.containers[container.name] = ContainerObject(self._service, container, text, autostart)
            self._service.server.add(one.path, one)
            self._service.report_counts()
            return
        before = one.container.state
        names = one.update(container, text, autostart)
        self._service.server.report_changes(one.path, one, names)
        if before != container.state:
            self._service.report_counts()
            self._service.report_state(one, before)

    async def _read_status_text(self, name: str) -> str:
        try:
            path = unit_path(unit_name(name))
            answer = await self._service.connection.ask(
                NAME, path, PROPERTIES, "Get", "ss", [SERVICE, "StatusText"]
            )
        except RemoteError:
            return ""
        return str(answer[0].value)

    def _forget(self, name: str) -> None:
        one = self.containers.pop(name, None)
        if one is not None:
            self._service.server.remove(one.path)
            self._service.report_counts()

    def refresh_images(self) -> None:
        """Read all images anew; of a store that cannot be read, none, and ``images_error`` says why."""
        self.images_error = None
        try:
            records = {record.id.hex: record for record in list_images(self._service.context)}
        except StoreError as error:
            logger.warning("cannot look at images: %s", error)
            records, self.images_error = {}, error
        self.newer = NewerImages(self._service.context, records.values())
        for key, record in records.items():
            one = self.images.get(key)
            if one is None:
                one = self.images[key] = ImageObject(self._service, record)
                self._service.server.add(one.path, one)
                self._service.report_image("add", one)
                continue
            changed = one.update(record)
            self._service.server.report_changes(one.path, one, changed)
            if "Names" in changed:
                self._service.report_image("rename", one)
        for key in set(self.images) - set(records):
            gone = self.images.pop(key)
            self._service.server.remove(gone.path)
            self._service.report_image("remove", gone)
        self._service.report_counts()

    async def refresh_store(self) -> None:
        """Read all images anew, and all containers: what they are made of may be another image now."""
        self.refresh_images()
        await self.refresh_all()

    # Being told

    def unit_changed(self, path: str) -> None:
        """A unit of systemd's has changed; ``path`` is its object."""
        name = unescape_unit_path(path)
        if name is not None:
            self._note(name)

    def group_changed(self, group: str) -> None:
        """A container's cgroup, of which this is the directory, stands still, goes on, or is empty."""
        name = container_name(os.path.basename(os.path.dirname(group)))
        if name is not None:
            self._note(name)

    def health_changed(self, name: str) -> None:
        """A check of a container's health has ended."""
        if name in self.containers:
            self._note(name)

    def _note(self, name: str) -> None:
        self._dirty.add(name)
        self._wake.set()

    def definitions_changed(self) -> None:
        """Something is different where definitions and containers lie."""
        self._all_dirty = True
        self._wake.set()

    def images_changed(self) -> None:
        """Something is different where images lie."""
        self._images_dirty = True
        self._wake.set()

    async def keep_true(self) -> None:
        """Look again at what has changed, for ever."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(SETTLE)
            self._wake.clear()
            dirty, self._dirty = self._dirty, set()
            everything, self._all_dirty = self._all_dirty, False
            images, self._images_dirty = self._images_dirty, False
            try:
                if images:
                    await self.refresh_store()
                elif everything:
                    await self.refresh_all()
                elif dirty:
                    await self.refresh(dirty)
            except (RemoteError, TimeoutError, OSError) as error:
                logger.warning("cannot look at containers: %s", error)


def unescape_unit_path(path: str) -> str | None:
    """Return the container whose unit has this object path, None if it is another unit."""
    unit = unescape_element(path.removeprefix(_UNIT_PREFIX)) if path.startswith(_UNIT_PREFIX) else None
    return None if unit is None else container_name(unit)


def unescape_element(text: str) -> str | None:
    """Return what ``escape_object_path`` made this element of, None if it made no such thing."""
    data = bytearray()
    at = 0
    while at < len(text):
        if text[at] == "_":
            try:
                data.append(int(text[at + 1 : at + 3], 16))
            except ValueError:
                return None
            at += 3
        else:
            data += text[at].encode()
            at += 1
    return os.fsdecode(bytes(data))
