"""``usercontainer image import-storage``."""

from __future__ import annotations

from usercontainerd.base.errors import printable
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import write_error, write_output
from usercontainerd.cli.progress import Progress
from usercontainerd.cli.termination import catch_termination

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.cli.call import Call

FAILED = 125
IMPORT_STORAGE = Verb(
    "image import-storage",
    "[IMAGE...]",
    "Take over images of Podman's own store",
    (
        Option("-q, --quiet", "show no progress"),
        Option("--root DIRECTORY", "Podman's graphroot, if it is not where storage.conf(5) says"),
        Option("--signature-policy FILE", "which images may come, instead of policy.json"),
    ),
    details="All images, or those given by name or ID. Podman's store is only read. An image that is damaged is left\n"
    "out with a message, and the exit status is 125.",
)


def run_import_storage(call: Call) -> int:
    """Take over image by image, and say so."""
    from usercontainerd.engine.archives.storage_import import import_storage

    catch_termination("the import was stopped")
    options = call.options
    progress = Progress("Podman's store", shown=not options.flag("quiet"))
    status = 0
    try:
        for image in import_storage(
            call.context(),
            call.words,
            root=options.value("root"),
            progress=progress,
            signature_policy=options.value("signature-policy"),
        ):
            progress.finish()
            # Names as Podman's file has them: whatever is in it.
            name = printable(", ".join(image.names) or f"sha256:{image.id}")
            if image.error is None:
                write_output(f"Imported image: {name}\n")
            else:
                write_error(f"Error: {name} is left out: {image.error}\n")
                status = FAILED
    finally:
        progress.finish()
    return status


VERBS = {"image import-storage": (IMPORT_STORAGE, run_import_storage)}
