"""Staying with a container from its start to its end, as ``run`` and ``start --attach`` do."""

from __future__ import annotations

from usercontainerd.base.errors import UsercontainerError
from usercontainerd.cli.lifecycle import report
from usercontainerd.cli.output import write_error
from usercontainerd.engine.containers.attachment import Attachment, Wishes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.cli.call import Call


def stay(call: Call, name: str, wishes: Wishes) -> int:
    """Start the container and return its exit status, or docker's for one that does not start."""
    try:
        outcome = Attachment(call.paths, name, wishes, call.connect).run()
    except UsercontainerError as error:
        report(error)
        return error.exit_status
    if outcome.failure:
        write_error(f"Error: {outcome.failure}\n")
    return outcome.status
