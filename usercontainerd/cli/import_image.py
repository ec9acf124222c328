"""``usercontainer import``."""

from __future__ import annotations

import os

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import write_output
from usercontainerd.cli.progress import Progress
from usercontainerd.cli.termination import catch_termination

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.cli.call import Call
    from usercontainerd.oci.platform import Platform

IMPORT = Verb(
    "import",
    "FILE|- [IMAGE]",
    "Make an image of one layer from a tar archive",
    (
        Option("--arch ARCHITECTURE", "the architecture; this host's by default"),
        Option(
            "-c, --change INSTRUCTION...",
            "CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR",
        ),
        Option("-m, --message TEXT", "a comment in the image's history"),
        Option("--os NAME", "the operating system; linux by default"),
        Option("-q, --quiet", "show no progress"),
        Option("--variant VARIANT", "the variant of the architecture"),
    ),
    fewest=1,
    most=2,
    details="The archive may be compressed. Prints the image's ID.",
)


def run_import(call: Call) -> int:
    """Make the image."""
    from usercontainerd.engine.archives.importing import MESSAGE, import_image
    from usercontainerd.engine.images.instructions import apply_changes
    from usercontainerd.engine.images.names import plan_name

    path: str | None = call.words[0]
    if path == "-":
        path = None
        if os.isatty(0):
            raise InvalidArgument("standard input is a terminal", hint="usercontainer import FILE")
    name = plan_name(call.words[1]) if len(call.words) > 1 else None
    config = apply_changes(call.options.values("change"))
    catch_termination("the import was stopped")
    progress = Progress(call.words[0], shown=not call.options.flag("quiet"))
    try:
        record = import_image(
            call.context(),
            path,
            name,
            config=config,
            message=call.options.value("message") or MESSAGE,
            platform=read_platform(call),
            progress=progress,
        )
    finally:
        progress.finish()
    write_output(f"{record.id}\n")
    return 0


def read_platform(call: Call) -> Platform | None:
    """``--os``, ``--arch`` and ``--variant``; None without any of them."""
    from usercontainerd.oci.platform import Platform, parse_platform, plan_host_platform

    options = call.options
    system, architecture, variant = (options.value(key) for key in ("os", "arch", "variant"))
    if not (system or architecture or variant):
        return None
    host = plan_host_platform(os.uname().machine)
    platform = Platform(system or "linux", architecture or host.architecture, variant or "")
    parse_platform(str(platform))  # raises; it is kept in the words in which it was given
    return platform


VERBS = {"import": (IMPORT, run_import)}
