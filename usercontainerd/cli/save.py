"""``usercontainer save``."""

from __future__ import annotations

import os

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.progress import PROGRESS, Progress, read_format
from usercontainerd.cli.termination import catch_termination

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.cli.call import Call

FORMATS = ("docker-archive", "oci-archive", "oci-dir", "docker-dir")  # as engine.saving.SaveFormat
SAVE = Verb(
    "save",
    "IMAGE [IMAGE...]",
    "Save images to an archive or a directory",
    (
        Option("--compress", "compress the layers of a docker-dir"),
        Option("--format FORMAT", "docker-archive (default), oci-archive, oci-dir or docker-dir", FORMATS),
        Option("-m, --multi-image-archive", "accepted: several images can be saved in any case"),
        Option("-o, --output PATH", "the file or directory; standard output without it"),
        PROGRESS,
        Option("-q, --quiet", "show no progress"),
        Option("--uncompressed", "do not compress the layers of the OCI formats"),
    ),
    fewest=1,
    details="An image that is named by its ID is saved without a name. The same images make the same bytes.",
)


def run_save(call: Call) -> int:
    """Write the images."""
    from usercontainerd.engine.archives.saving import SaveFormat, save_images

    options = call.options
    kind = options.value("format") or FORMATS[0]
    if kind not in FORMATS:
        raise InvalidArgument(
            f'--format: "{kind}" is not possible', hint=f"possible are {', '.join(FORMATS)}"
        )
    if options.flag("compress") and kind != "docker-dir":
        raise InvalidArgument("--compress is for --format docker-dir only")
    path = options.value("output")
    if path == "-":
        path = None
    if path is None and os.isatty(1) and not kind.endswith("-dir"):
        raise InvalidArgument("standard output is a terminal", hint="use -o FILE, or redirect the output")
    catch_termination("saving was stopped")
    form = read_format(options.value("progress"))
    progress = Progress(path or "standard output", shown=not options.flag("quiet"), form=form)
    try:
        save_images(
            call.context(),
            call.words,
            path=path,
            kind=SaveFormat(kind),
            compress=options.flag("compress"),
            uncompressed=options.flag("uncompressed"),
            progress=progress,
        )
    finally:
        progress.finish()
    return 0


VERBS = {"save": (SAVE, run_save)}
