"""``usercontainer commit``."""

from __future__ import annotations

from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import write_error, write_output
from usercontainerd.cli.progress import Progress
from usercontainerd.cli.termination import catch_termination

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.cli.call import Call

FORMATS = ("oci", "docker")
COMMIT = Verb(
    "commit",
    "CONTAINER [IMAGE]",
    "Make an image of what a container has become",
    (
        Option("-a, --author TEXT", "the image's author"),
        Option(
            "-c, --change INSTRUCTION...",
            "CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR",
        ),
        Option("-f, --format FORMAT", "oci (default) or docker", FORMATS),
        Option("--iidfile FILE", "write the image's ID into a file"),
        Option("-m, --message TEXT", "a comment in the image's history"),
        Option("-p, --pause", "have a running container stand still meanwhile (default true)"),
        Option("-q, --quiet", "show no progress"),
        Option("-s, --squash", "make an image of a single layer"),
    ),
    fewest=1,
    most=2,
    details="Prints the image's ID. Volumes and other mounts are not part of it. What the image says is what the\n"
    "container's image says, with the changes.",
)


def run_commit(call: Call) -> int:
    """Make the image."""
    from usercontainerd.engine.containers.committing import Commit, commit_container, parse_form
    from usercontainerd.engine.containers.lookup import resolve_name
    from usercontainerd.kernel.atomicfile import write_atomic

    options = call.options
    commit = Commit(
        changes=options.values("change"),
        author=options.value("author") or "",
        message=options.value("message") or "",
        form=parse_form(options.value("format") or ""),
        pause=options.flag("pause", True),
        squash=options.flag("squash"),
    )
    name = resolve_name(call.paths, call.words[0])
    catch_termination("the commit was cancelled")
    progress = Progress(name, shown=not options.flag("quiet"))
    text = call.words[1] if len(call.words) > 1 else None
    try:
        record, warnings = commit_container(call.context(), name, text, commit, progress=progress)
    finally:
        progress.finish()
    for warning in warnings:
        write_error(f"Warning: {warning}\n")
    path = options.value("iidfile")
    if path is not None:
        write_atomic(path, f"{record.id}".encode(), mode=0o644, sync=False)
    write_output(f"{record.id.hex}\n")
    return 0


VERBS = {"commit": (COMMIT, run_commit)}
