"""``usercontainer rmi`` (``image rm``) and ``image prune``."""

from __future__ import annotations

import os

from usercontainerd.base.errors import (
    InUse,
    InvalidArgument,
    NoSuchImage,
    UsercontainerError,
)
from usercontainerd.base.sizes import format_size
from usercontainerd.cli.listing import parse_filters
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import write_error, write_output
from usercontainerd.engine.images.removal import (
    Removed,
    prune_images,
    remove_all_images,
    remove_image,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from usercontainerd.cli.call import Call
    from usercontainerd.engine.context import Context
    from usercontainerd.systemd.manager import Manager

ABSENT_STATUS = 1  # as podman has them
IN_USE_STATUS = 2
RMI = Verb(
    "rmi",
    "IMAGE [IMAGE...]",
    "Remove images",
    (
        Option("-a, --all", "remove all images"),
        Option("-f, --force", "with all names of an ID, and with the containers that use it"),
        Option("-i, --ignore", "an image that does not exist is no error"),
        Option("--no-prune", "leave nameless images from which it was made"),
    ),
    details="A name goes alone while the image has others. The exit status is 1 if an image does not exist, 2 if one\n"
    "is used by a container.",
)
PRUNE = Verb(
    "image prune",
    "",
    "Remove images that nothing needs, and downloads that have stopped halfway",
    (
        Option("-a, --all", "all images that no container uses, not only those without a name"),
        Option("--build-cache", "nothing more: there is no build cache"),
        Option(
            "--filter KIND=VALUE...",
            "only what matches: until, label, label!",
            ("until=", "label="),
        ),
        Option("-f, --force", "do not ask"),
    ),
    most=0,
    refused={"--external": "there are no containers of other programs"},
)


def run_rmi(call: Call) -> int:
    """Remove each; go on after a failure."""
    options = call.options
    everything, force = options.flag("all"), options.flag("force")
    if everything and call.words:
        raise InvalidArgument("--all removes all images", hint="give either --all or names")
    if not everything and not call.words:
        raise InvalidArgument(
            "an argument is missing", hint="usage: usercontainer rmi [OPTIONS] IMAGE [IMAGE...]"
        )
    context = call.context()
    manager = call.find_manager()
    if everything:
        removed, failures = remove_all_images(context, manager=manager, force=force)
        report_removed(removed)
        return report_failures(failures)
    return remove_each(
        context,
        call.words,
        manager,
        force=force,
        prune=not options.flag("no-prune"),
        missing_is_fine=force or options.flag("ignore"),
    )


def remove_each(
    context: Context,
    words: Sequence[str],
    manager: Manager | None,
    *,
    force: bool,
    prune: bool,
    missing_is_fine: bool,
) -> int:
    """Remove what each word means; return podman's status."""
    failures: list[UsercontainerError] = []
    for word in words:
        try:
            report_removed(remove_image(context, word, manager=manager, force=force, prune=prune))
        except NoSuchImage as error:
            if not missing_is_fine:
                failures.append(error)
        except UsercontainerError as error:
            failures.append(error)
    return report_failures(failures)


def report_removed(removed: Removed) -> None:
    """Print what went, as podman does."""
    write_output(
        "".join(f"Untagged: {name}\n" for name in removed.untagged)
        + "".join(f"Deleted: {image.hex}\n" for image in removed.deleted)
    )


def report_failures(failures: Sequence[UsercontainerError]) -> int:
    """Show the errors; return the status that stands for them."""
    for error in failures:
        write_error(f"Error: {error}\n")
    if any(isinstance(error, InUse) for error in failures):
        return IN_USE_STATUS
    others = [error for error in failures if not isinstance(error, NoSuchImage)]
    if others:
        return others[0].exit_status
    return ABSENT_STATUS if failures else 0


def run_prune(call: Call) -> int:
    """Remove what nothing needs, after asking."""
    from usercontainerd.engine.images.filters import build_prune_test

    options = call.options
    context = call.context()
    filters = parse_filters(options.values("filter"))
    is_meant = build_prune_test(context, filters) if filters else None
    everything = options.flag("all")
    if not options.flag("force") and not ask(everything):
        return 0
    removed = prune_images(context, manager=call.find_manager(), everything=everything, is_meant=is_meant)
    write_output("".join(f"{image.hex}\n" for image in removed.deleted))
    if removed.partials:
        count, size = len(removed.partials), format_size(sum(removed.partials))
        write_error(f"Removed {size} of {count} download{'s' * (count > 1)} that had stopped halfway\n")
    return 0


def ask(everything: bool) -> bool:
    """Ask whether it is meant. Raises ``InvalidArgument`` if there is no answer."""
    what = "images without at least one container associated with them" if everything else "dangling images"
    write_output(f"WARNING! This command removes all {what}.\nAre you sure you want to continue? [y/N] ")
    answer = b""
    while not answer.endswith(b"\n"):
        piece = os.read(0, 1)
        if not piece:
            raise InvalidArgument("nobody answers", hint="use --force")
        answer += piece
        if len(answer) > 1000:
            break
    return answer.strip().lower() in (b"y", b"yes")


VERBS = {"image prune": (PRUNE, run_prune), "rmi": (RMI, run_rmi)}
