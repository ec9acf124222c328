"""``usercontainer load``."""

from __future__ import annotations

import os

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import write_output
from usercontainerd.cli.progress import PROGRESS, Progress, read_format
from usercontainerd.cli.termination import catch_termination

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.cli.call import Call

LOAD = Verb(
    "load",
    "",
    "Load images from an archive or a directory",
    (
        Option("-i, --input PATH", "a file or a directory; standard input without it"),
        PROGRESS,
        Option("-q, --quiet", "show no progress"),
        Option("--signature-policy FILE", "which images may come, instead of policy.json"),
    ),
    most=0,
    details="Docker's archives, OCI archives and layouts, and directories of skopeo's dir: are understood, files also\n"
    "when they are compressed with gzip, zstd, xz or bzip2. Prints the names of the images.",
)


def run_load(call: Call) -> int:
    """Load all images of a file, and say what they are called."""
    from usercontainerd.engine.archives.loading import STANDARD_INPUT, load_images

    path = call.options.value("input")
    if path == "-":
        path = None
    if path is None and os.isatty(0):
        raise InvalidArgument(
            "standard input is a terminal", hint="usercontainer load -i FILE, or usercontainer load < FILE"
        )
    catch_termination("loading was stopped")
    form = read_format(call.options.value("progress"))
    progress = Progress(path or STANDARD_INPUT, shown=not call.options.flag("quiet"), form=form)
    try:
        loaded = load_images(
            call.context(), path, progress=progress, signature_policy=call.options.value("signature-policy")
        )
    finally:
        progress.finish()
    for image in loaded:
        for name in image.names or (str(image.record.id),):
            write_output(f"Loaded image: {name}\n")
    return 0


VERBS = {"load": (LOAD, run_load)}
