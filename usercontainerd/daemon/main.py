"""The program ``usercontainerd``: connects, answers, and leaves when nobody needs it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from usercontainerd import __version__
from usercontainerd.base.programs import Programs
from usercontainerd.daemon.applications import NAME as APPLICATIONS_NAME
from usercontainerd.daemon.connection import RemoteError, connect_bus
from usercontainerd.daemon.description import find_descriptions
from usercontainerd.daemon.lifetime import DEFAULT
from usercontainerd.daemon.logbook import STARTED, JournalHandler, note, start_logging
from usercontainerd.daemon.service import NAME, Service
from usercontainerd.engine.context import build_context
from usercontainerd.kernel.notification import notify

FAILED = 1
PATIENCE = 2.0  # seconds that calls may still take when it is to leave

logger = logging.getLogger("usercontainerd")


def main(arguments: list[str], environment: dict[str, str], programs: str) -> int:
    """``usercontainerd [--idle SECONDS]``; 0 means for ever."""
    idle = DEFAULT
    if arguments[:1] == ["--idle"] and len(arguments) == 2:
        idle = float(arguments[1]) or float("inf")
    elif arguments:
        sys.stderr.write("usage: usercontainerd [--idle SECONDS]\n")
        return 2
    start_logging(environment)
    try:
        return asyncio.run(serve(environment, programs, idle))
    except OSError as error:
        logger.error("no session bus: %s", error.strerror or error)
        return FAILED


async def serve(environment: dict[str, str], programs: str, idle: float) -> int:
    """Serve until idle, told to end, or cut off."""
    # Ours alone: what children say of their work is not the service's state.
    notify_socket = environment.get("NOTIFY_SOCKET")
    environment = {name: value for name, value in environment.items() if name != "NOTIFY_SOCKET"}
    for handler in logging.getLogger().handlers:
        if isinstance(handler, JournalHandler):
            handler.use_loop(asyncio.get_running_loop())
    address = environment.get("DBUS_SESSION_BUS_ADDRESS")
    if not address:
        address = f"unix:path={environment.get('XDG_RUNTIME_DIR', f'/run/user/{os.getuid()}')}/bus"
    context = build_context(environment, Programs(programs), os.getuid(), os.getgid())
    connection = await connect_bus(address)
    applications = await connect_bus(address)
    service = Service(context, connection, environment, applications, find_descriptions(), idle_seconds=idle)
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    loop.add_signal_handler(signal.SIGHUP, service.look_again)
    await service.start()
    # The name by which systemd takes the service for started comes last.
    for owner, name in ((applications, APPLICATIONS_NAME), (connection, NAME)):
        if not await owner.own_name(name):
            logger.error("another process has the name %s", name)
            return FAILED
    notify(notify_socket, "READY=1\nSTATUS=Answering")
    logger.info("Version %s answers; %s", __version__, service.describe(), extra=note(STARTED))
    quiet = loop.create_task(service.idle.wait())
    cut = {loop.create_task(each.wait_for_end()) for each in (connection, applications)}
    end = loop.create_task(told.wait())
    await asyncio.wait({end, quiet, *cut}, return_when=asyncio.FIRST_COMPLETED)
    # Without STOPPING=1: for a unit that it takes down, systemd asks the bus, which may be what has gone.
    try:
        for owner, name in ((connection, NAME), (applications, APPLICATIONS_NAME)):
            await owner.give_up_name(name)
        await service.finish_calls(PATIENCE)
    except (RemoteError, OSError, TimeoutError) as error:
        logger.debug("the bus was gone first: %s", error)
    service.close()
    return 0
