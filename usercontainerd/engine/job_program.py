"""The program ``job REQUEST``: does one thing that takes long for the daemon, and tells how far it is.

REQUEST is a JSON object with ``operation`` and what that needs. Descriptor 0 is the archive that is read or written,
where there is one. Each line of output is an object: ``{"progress": [phase, item, done, total]}``,
``{"notice": text}`` for what is good to know, and last ``{"result": {…}}`` or ``{"error": [name, message]}``. SIGTERM
cancels.
"""

from __future__ import annotations

import json
import os
import signal
import time

from usercontainerd.base.errors import Cancelled, HostError, InvalidArgument, NoSuchLogin, UsercontainerError
from usercontainerd.base.programs import Programs
from usercontainerd.engine.cancellation import cancel_on, end_cancellation
from usercontainerd.engine.context import build_context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from usercontainerd.engine.context import Context

    Operation = Callable[[Context, dict[str, Any]], dict[str, Any]]

INTERVAL = 0.1  # seconds between two reports on the same item


class Reporter:
    """Progress as lines; of one item not more often than a reader can want, but its end always."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], float] = {}

    def __call__(self, phase: str, item: str, done: int, total: int, /) -> None:
        """Take one report of the engine."""
        now = time.monotonic()
        key = (phase, item)
        if done < total and now - self._last.get(key, 0.0) < INTERVAL:
            return
        self._last[key] = now
        write_line({"progress": [phase, item, done, total]})


def write_line(word: dict[str, Any]) -> None:
    """Write one object."""
    data = json.dumps(word).encode() + b"\n"
    try:
        while data:
            data = data[os.write(1, data) :]
    except BrokenPipeError:
        # The daemon is gone: in whichever thread this is, and whatever becomes of the error there, all ends.
        os.kill(os.getpid(), signal.SIGTERM)


def write_notice(text: str) -> None:
    """Tell what a person at the command line would read beside the progress."""
    write_line({"notice": text})


def pull(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """``reference``, ``policy``, ``platform``."""
    from usercontainerd.definition.pull_policy import PullPolicy
    from usercontainerd.engine.registries.endpoints import Conversation
    from usercontainerd.engine.transfers.obtaining import pull_image
    from usercontainerd.oci.platform import parse_platform

    if request["policy"] not in tuple(PullPolicy):
        raise InvalidArgument(f'"{request["policy"]}" is no pull policy')
    platform = parse_platform(request["platform"]) if request["platform"] else None
    record = pull_image(
        context,
        request["reference"],
        policy=PullPolicy(request["policy"]),
        platform=platform,
        progress=Reporter(),
        talk=Conversation(notice=write_notice),
    )
    return {"image": str(record.id)}


def load(context: Context, _request: dict[str, Any]) -> dict[str, Any]:
    """From descriptor 0."""
    from usercontainerd.engine.archives.loading import load_images

    loaded = load_images(context, None, progress=Reporter())
    return {
        "images": [str(image.record.id) for image in loaded],
        "names": [str(name) for image in loaded for name in image.names],
    }


def save(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """``image`` as ``format``, to descriptor 0."""
    from usercontainerd.engine.archives.saving import SaveFormat, save_images

    if request["format"] not in (SaveFormat.DOCKER_ARCHIVE, SaveFormat.OCI_ARCHIVE):
        raise InvalidArgument(f'"{request["format"]}" is no format of an archive')
    save_images(
        context,
        [request["image"]],
        path=None,
        kind=SaveFormat(request["format"]),
        stdout=0,
        progress=Reporter(),
    )
    return {}


def import_archive(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """From descriptor 0, as ``reference``, with ``changes``."""
    from usercontainerd.engine.archives.importing import import_image
    from usercontainerd.engine.images.instructions import apply_changes
    from usercontainerd.engine.images.names import plan_name

    name = plan_name(request["reference"]) if request["reference"] else None
    config = apply_changes(request["changes"])
    record = import_image(context, None, name, config=config, progress=Reporter())
    return {"image": str(record.id)}


def push(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """``image`` to ``destination``, or to where its name says."""
    from usercontainerd.engine.transfers.pushing import push_image

    pushed = push_image(context, request["image"], request["destination"] or None, progress=Reporter())
    return {"reference": str(pushed.reference), "digest": str(pushed.digest)}


def login(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """``user`` at ``registry``, with the password from descriptor 0; kept if the registry takes it."""
    from usercontainerd.engine.registries.logins import (
        LoginPlace,
        check_credentials,
        keep_login,
        parse_login_key,
        read_password,
    )
    from usercontainerd.registry.authentication import Credentials

    key, registry = parse_login_key(request["registry"])
    if not request["user"] or ":" in request["user"]:
        raise InvalidArgument("a user name is not empty, and has no colon")
    credentials = Credentials(request["user"], read_password(0))
    check_credentials(context, registry, credentials)
    keep_login(LoginPlace(context), key, credentials)
    return {}


def logout(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """From ``registry``."""
    from usercontainerd.engine.registries.logins import LoginPlace, forget_login, parse_login_key

    key, _ = parse_login_key(request["registry"])
    if not forget_login(LoginPlace(context), key):
        raise NoSuchLogin(f"not logged into {key}")
    return {}


def export(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """The root file system of container ``name``, to descriptor 0."""
    from usercontainerd.engine.containers.exporting import export_container

    return {"warnings": export_container(context, request["name"], path=None, stdout=0)}


def copy_in(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """The archive from descriptor 0 into the directory ``path`` of container ``name``; ``exact``, ``overwrite``."""
    from usercontainerd.engine.copies.copying import ContainerPath, Copying, copy_archive_in

    where = ContainerPath(request["name"], request["path"])
    how = Copying(
        exact=request["exact"], overwrite=request["overwrite"], report=report_bytes(request["path"])
    )
    return {"warnings": copy_archive_in(context, where, 0, how)}


def copy_out(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """What is at ``path`` of container ``name`` as an archive to descriptor 0."""
    from usercontainerd.engine.copies.copying import ContainerPath, Copying, copy_archive_out

    where = ContainerPath(request["name"], request["path"])
    how = Copying(report=report_bytes(request["path"]))
    return {"warnings": copy_archive_out(context, where, 0, how)}


def report_bytes(item: str) -> Callable[[int], object]:
    """A report of bytes that have passed, of an amount that nobody knows."""
    from usercontainerd.engine.phases import Phase

    reporter = Reporter()
    return lambda done: reporter(Phase.COPY, item, done, 0)


def commit(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """An image of container ``name``, called ``reference`` if that is not empty; see ``Commit`` for the rest."""
    from usercontainerd.engine.containers.committing import Commit, commit_container, parse_form

    how = Commit(
        changes=request["changes"],
        author=request["author"],
        message=request["message"],
        form=parse_form(request["format"]),
        pause=request["pause"],
        squash=request["squash"],
    )
    record, warnings = commit_container(
        context, request["name"], request["reference"] or None, how, progress=Reporter()
    )
    return {"image": str(record.id), "warnings": warnings}


def diff(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """What container ``name`` has changed, to descriptor 0: letter, blank, path and a NUL each."""
    from usercontainerd.engine.archives.output import write_out
    from usercontainerd.engine.containers.differences import list_container_changes

    for change in list_container_changes(context, request["name"]):
        write_out(0, change.kind.encode() + b" " + change.path + b"\0", "the output")
    return {}


def prune(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Images that nothing uses; ``all`` or those without a name."""
    from usercontainerd.engine.images.removal import prune_images
    from usercontainerd.systemd.manager import Manager

    address = dict(context.environment).get("DBUS_SESSION_BUS_ADDRESS")
    with Manager.connect(context.paths.runtime_root, address) as manager:
        removed = prune_images(context, manager=manager, everything=request["all"])
    return {
        "names": removed.untagged,
        "images": [str(image) for image in removed.deleted],
        "partial": sum(removed.partials),
    }


def check(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Whether the store is whole: ``quick``, ``repair``."""
    from usercontainerd.engine.checking import check_store

    reporter = Reporter()
    findings = check_store(
        context,
        quick=request["quick"],
        repair=request["repair"],
        report=lambda layer, number, count: reporter("check", layer, number, count),
    )
    return {
        "findings": [finding.as_dict() for finding in findings],
        "whole": not any(finding.counts for finding in findings),
    }


def doctor(context: Context, _request: dict[str, Any]) -> dict[str, Any]:
    """What ``usercontainer doctor`` finds."""
    from usercontainerd.engine.host.doctor import run_checks

    return {"findings": [finding.as_dict() for finding in run_checks(context)]}


def sweep(context: Context, _request: dict[str, Any]) -> dict[str, Any]:
    """What killed processes have left."""
    from usercontainerd.engine.containers.sweeping import sweep_removed
    from usercontainerd.engine.images.local import sweep_leftovers

    sweep_removed(context)
    sweep_leftovers(context)
    return {}


OPERATIONS: dict[str, Operation] = {
    "check": check,
    "commit": commit,
    "copy-in": copy_in,
    "copy-out": copy_out,
    "diff": diff,
    "doctor": doctor,
    "export": export,
    "import": import_archive,
    "load": load,
    "login": login,
    "logout": logout,
    "prune": prune,
    "pull": pull,
    "push": push,
    "save": save,
    "sweep": sweep,
}


def main(arguments: list[str], environment: dict[str, str], programs: str) -> int:
    """Do it; the exit status is that of the error, if there is one."""
    ends = (signal.SIGTERM, signal.SIGINT)
    cancel_on(ends, "cancelled")
    # The error that write(2) returns says which pipe it was. Not ignored: programs that we run would be born so.
    signal.signal(signal.SIGPIPE, lambda _number, _frame: None)
    try:
        return _run(arguments, environment, programs, ends)
    except Cancelled as error:
        return _report(error)  # it came when all was done, or said


def _run(arguments: list[str], environment: dict[str, str], programs: str, ends: tuple[int, ...]) -> int:
    try:
        os.set_blocking(0, True)  # a client's main loop may have it otherwise
        request = json.loads(arguments[0])
        context = build_context(environment, Programs(programs), os.getuid(), os.getgid())
        result = OPERATIONS[request["operation"]](context, request)
    except UsercontainerError as error:
        return _report(error)
    except OSError as error:
        return _report(HostError(error.strerror or str(error), where=error.filename))
    finally:
        end_cancellation(ends)
    write_line({"result": result})
    return 0


def _report(error: UsercontainerError) -> int:
    try:
        write_line({"error": [error.name, str(error)]})
    except (OSError, Cancelled):
        pass  # the daemon is gone, and nobody waits for our words
    return error.exit_status
