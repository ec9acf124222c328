"""Where the board hears of changes: systemd's signals, and inotify where our files and the containers' cgroups lie."""

from __future__ import annotations

import os

from usercontainerd.base.names import is_container_name
from usercontainerd.engine.containers.lookup import definition_directories
from usercontainerd.kernel.inotify import DirectoryWatch
from usercontainerd.runtime.health import health_directory
from usercontainerd.systemd.manager import MANAGER, NAME, PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio

    from usercontainerd.base.paths import Paths
    from usercontainerd.daemon.board import Board
    from usercontainerd.daemon.connection import Connection, Message

EVENTS = "cgroup.events"
PROPERTIES = "org.freedesktop.DBus.Properties"


async def watch_systemd(connection: Connection, board: Board) -> None:
    """Have the board told of units that change, come and go."""

    def take(message: Message) -> bool:
        if message.message_type.name != "SIGNAL" or not message.path:
            return False
        if message.interface == PROPERTIES and message.path.startswith(f"{PATH}/unit/container_40"):
            board.unit_changed(message.path)
        elif message.interface == MANAGER and message.member in ("UnitNew", "UnitRemoved"):
            board.unit_changed(message.body[1])
        elif message.interface == MANAGER and message.member == "Reloading" and not message.body[0]:
            board.definitions_changed()
        return False

    connection.add_message_handler(take)
    await connection.add_match(
        f"type='signal',sender='{NAME}',interface='{PROPERTIES}',member='PropertiesChanged',"
        f"path_namespace='{PATH}/unit'"
    )
    await connection.add_match(f"type='signal',sender='{NAME}',interface='{MANAGER}',path='{PATH}'")
    await connection.ask(NAME, PATH, MANAGER, "Subscribe")


def watch_disk(paths: Paths, board: Board, loop: asyncio.AbstractEventLoop) -> DirectoryWatch:
    """Have the board told of definitions and image records that change."""
    watch = DirectoryWatch()
    definitions = {*definition_directories(paths)}
    images = {f"{paths.data}/images", f"{paths.data}/names"}
    health = health_directory(paths)
    os.makedirs(health, mode=0o700, exist_ok=True)
    # The directory above, too: what is moved away with it tells nobody.
    wanted = definitions | images | {paths.data, health}
    # Of what is not there yet, the nearest directory above tells when it comes.
    above: set[str] = set()

    def arm() -> None:
        above.clear()
        for directory in wanted:
            while not watch.add(directory) and directory != "/":
                directory = os.path.dirname(directory)  # noqa: PLW2901
                above.add(directory)

    def take() -> None:
        for directory, name in watch.read():
            if not directory:
                board.definitions_changed()
                board.images_changed()
            elif directory == health and is_container_name(name):
                board.health_changed(name)
            elif directory in definitions or directory.endswith(".toml.d"):
                board.definitions_changed()
            elif directory in images:
                board.images_changed()
            if not directory or directory in above or not os.path.isdir(directory):
                arm()
                board.definitions_changed()
                board.images_changed()

    arm()
    loop.add_reader(watch.fd, take)
    return watch


def watch_groups(board: Board, loop: asyncio.AbstractEventLoop) -> None:
    """Have the board told when a container's cgroup stands still or goes on: systemd says so of whole units only."""
    watch = DirectoryWatch()

    def follow(group: str) -> bool:
        return watch.add_file(f"{group}/{EVENTS}")

    def take() -> None:
        for path, _name in watch.read():
            if not path:
                board.definitions_changed()  # too much at once: everything is looked at
            else:
                board.group_changed(path.removesuffix(f"/{EVENTS}"))

    board.follow_group = follow
    loop.add_reader(watch.fd, take)
