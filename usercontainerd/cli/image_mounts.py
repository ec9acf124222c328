"""``usercontainer image mount`` and ``image unmount``, and ``unshare``, in which they work."""

from __future__ import annotations

import os

from usercontainerd.base.errors import (
    CommandNotExecutable,
    CommandNotFound,
    InvalidArgument,
    UsercontainerError,
)
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import render_table, write_error, write_output
from usercontainerd.engine.images.mounts import (
    enter_namespaces,
    list_mounts,
    mount_image,
    unmount,
    unmount_image,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from usercontainerd.cli.call import Call
    from usercontainerd.engine.images.mounts import ImageMount

MOUNT = Verb(
    "image mount",
    "[IMAGE...]",
    "Mount images, inside `usercontainer unshare`",
    (
        Option("-a, --all", "mount all images"),
        Option("--format FORMAT", "json", ("json",)),
    ),
    details="Without IMAGE, lists what is mounted. Mounts are seen only in the namespace of `usercontainer unshare`\n"
    "in which they were made, and go with its last process.",
)
UNMOUNT = Verb(
    "image unmount",
    "[IMAGE...]",
    "Unmount images",
    (
        Option("-a, --all", "unmount all images"),
        Option("-f, --force", "however often an image was mounted"),
    ),
)
UNSHARE = Verb(
    "unshare",
    "[COMMAND [ARG...]]",
    "Run a command as root of a user namespace of your own",
    leading=True,
    details="Without COMMAND, your shell. There, the files of your containers and images have the owners that they\n"
    "have in containers.",
    refused={"--rootless-netns": "there is no network namespace that containers share"},
)


def run_mount(call: Call) -> int:
    """Mount, or list."""
    options = call.options
    kind = options.value("format")
    if kind not in (None, "json"):
        raise InvalidArgument(f'--format: "{kind}" is not possible', hint="possible is json")
    context = call.context()
    words = list(call.words)
    if options.flag("all"):
        if words:
            raise InvalidArgument("--all mounts all images", hint="give either --all or names")
        from usercontainerd.engine.images.local import list_images

        words = [str(record.id) for record in list_images(context)]
    mounts = [mount_image(context, word) for word in words] if words else list_mounts(context)
    if kind is not None:
        from usercontainerd.cli.json_text import dump_json

        write_output(dump_json([describe_mount(each) for each in mounts], indent=4) + "\n")
    elif len(call.words) == 1:
        write_output(f"{mounts[0].path}\n")
    else:
        write_output(render_table((), [[name_image(each), each.path] for each in mounts]))
    return 0


def name_image(mounted: ImageMount) -> str:
    """How a list calls an image: by a name, else its ID. Pure."""
    names = mounted.record.names
    return names[0].name if names else mounted.record.id.hex


def describe_mount(mounted: ImageMount) -> dict[str, object]:
    """An image and where it is mounted, with podman's names. Pure."""
    return {
        "id": mounted.record.id.hex,
        "Names": [str(mounted.record.manifest)],
        "Repositories": [name.name for name in mounted.record.names],
        "mountpoint": mounted.path,
    }


def run_unmount(call: Call) -> int:
    """Unmount each; go on after a failure."""
    context = call.context()
    force = call.options.flag("force")
    if call.options.flag("all") == bool(call.words):
        raise InvalidArgument("which image?", hint="give either --all or names")
    if call.options.flag("all"):
        for each in list_mounts(context):
            write_output(f"{unmount(each, force=force).record.id.hex}\n")
        return 0
    status = 0
    for word in call.words:
        try:
            done = unmount_image(context, word, force=force)
        except UsercontainerError as error:
            write_error(f"Error: {error}\n")
            status = error.exit_status
            continue
        if done is not None:
            write_output(f"{done.record.id.hex}\n")
    return status


def run_unshare(call: Call) -> int:
    """Become root of the namespace, then the command."""
    words = call.words or [call.environment.get("SHELL") or "/bin/sh"]
    enter_namespaces(call.context())
    return execute(words, call.environment)


def execute(words: Sequence[str], environment: dict[str, str]) -> int:
    """Replace this process. Raises ``CommandNotFound``, ``CommandNotExecutable``."""
    import signal

    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and the command would inherit that
    try:
        os.execvpe(words[0], list(words), environment)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CommandNotFound("there is no such command", where=words[0]) from error
    except OSError as error:
        raise CommandNotExecutable(f"cannot be run: {error.strerror}", where=words[0]) from error


VERBS = {
    "image mount": (MOUNT, run_mount),
    "image unmount": (UNMOUNT, run_unmount),
    "unshare": (UNSHARE, run_unshare),
}
