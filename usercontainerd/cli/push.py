"""``usercontainer push``."""

from __future__ import annotations

from usercontainerd.base.errors import InvalidArgument, printable
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import write_error
from usercontainerd.cli.progress import PROGRESS, Progress, read_format
from usercontainerd.cli.pull import read_retry
from usercontainerd.cli.registry_options import ACCESS_OPTIONS, read_access
from usercontainerd.cli.termination import catch_termination

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.cli.call import Call
    from usercontainerd.engine.transfers.pushing import Pushed, PushOptions

PUSH = Verb(
    "push",
    "IMAGE [DESTINATION]",
    "Put an image into a registry",
    (
        *ACCESS_OPTIONS,
        Option("-a, --all-tags", "push all tags that the repository IMAGE has here"),
        Option(
            "--compression-format FORMAT",
            "gzip or zstd; as the layers were, or gzip, by default",
            ("gzip", "zstd"),
        ),
        Option("--compression-level LEVEL", "gzip: 1 to 9, zstd: 1 to 22"),
        Option("--digestfile FILE", "write the digest of the pushed manifest into a file"),
        Option("--disable-content-trust", "without effect; for scripts made for docker"),
        Option("--force-compression", "compress all layers anew, also those that the registry has already"),
        Option(
            "-f, --format FORMAT",
            "oci or v2s2 (Docker's), by default as the image was pulled",
            ("oci", "v2s2"),
        ),
        PROGRESS,
        Option("-q, --quiet", "show no progress"),
        Option("--remove-signatures", "push no signatures, which are never pushed"),
        Option("--retry NUMBER", "how often to try again, beside what each request is (default 0)"),
        Option("--retry-delay DURATION", "how long to wait before that (default 1s, then twice as long)"),
    ),
    fewest=1,
    most=2,
    details="Without DESTINATION the image goes to where its name says. What the registry has is not sent again. The\n"
    "digest is that of the pull, if all layers are there, or were kept (keep_blobs), as they came.",
    refused={
        "--compress": "it is for directories; layers in registries are compressed",
        "--encrypt-layer": "encrypted layers are not supported",
        "--encryption-key": "encrypted layers are not supported",
        "--sign-by": "signing is not possible; sign with skopeo or cosign",
        "--sign-by-sigstore": "signing is not possible; sign with skopeo or cosign",
        "--sign-by-sigstore-private-key": "signing is not possible; sign with skopeo or cosign",
    },
)


def run_push(call: Call) -> int:
    """Push an image, or all tags of a repository."""
    from usercontainerd.engine.transfers.pushing import list_tagged_names

    options = read_push_options(call)
    context = call.context()
    catch_termination("the push was stopped")
    image, *rest = call.words
    destination = rest[0] if rest else None
    if call.options.flag("all-tags"):
        if destination is not None:
            raise InvalidArgument("with --all-tags, images go to where their names say")
        pushed = [push_with_progress(call, name, None, options) for name in list_tagged_names(context, image)]
    else:
        pushed = [push_with_progress(call, image, destination, options)]
    path = call.options.value("digestfile")
    if path is not None:
        write_digests(path, pushed)
    return 0


def push_with_progress(call: Call, image: str, destination: str | None, options: PushOptions) -> Pushed:
    """Push one image, or an index with all that it has, showing progress on standard error."""
    from usercontainerd.engine.images.indexes import find_index
    from usercontainerd.engine.transfers.index_pushing import push_index
    from usercontainerd.engine.transfers.pushing import push_image

    context = call.context()
    is_index = find_index(context, image) is not None
    quiet = call.options.flag("quiet")
    form = read_format(call.options.value("progress"))
    progress = Progress(destination or image, shown=not quiet, form=form)
    access, retry = read_access(call), read_retry(call.options)

    def push() -> Pushed:
        send = push_index if is_index else push_image
        return send(context, image, destination, options=options, access=access, progress=progress)

    try:
        pushed = push() if retry is None else retry.run(push, write_notice)
    finally:
        progress.finish()
    if not quiet and form != "json":
        write_error(f"Pushed {pushed.reference} with digest {pushed.digest}\n")
    return pushed


def write_notice(text: str) -> None:
    """Say that it is tried again."""
    write_error(f"{printable(text)}\n")


def read_push_options(call: Call) -> PushOptions:
    """What is to be different from the image as it is here. Raises ``InvalidArgument``."""
    from usercontainerd.engine.transfers.pushing import PushOptions
    from usercontainerd.oci.conversion import ManifestForm
    from usercontainerd.store.compress import Compression

    form = call.options.value("format")
    if form not in (None, "oci", "v2s2"):
        hint = "Docker's schema 1 is withdrawn" if form == "v2s1" else "possible are oci, v2s2"
        raise InvalidArgument(f'"{form}" is no format of a manifest', hint=hint)
    compression = call.options.value("compression-format")
    if compression not in (None, "gzip", "zstd"):
        raise InvalidArgument(f'"{compression}" is no compression', hint="possible are gzip, zstd")
    level = call.options.value("compression-level")
    if level is not None and not (level.isascii() and level.isdecimal()):
        raise InvalidArgument(f'--compression-level "{level}" is no number')
    return PushOptions(
        form=None if form is None else ManifestForm(form),
        compression=None if compression is None else Compression(compression),
        level=None if level is None else int(level),
        force=call.options.flag("force-compression"),
    )


def write_digests(path: str, pushed: list[Pushed]) -> None:
    """``--digestfile``: the digest without a line end, as podman writes it; of several, one on each line."""
    text = "\n".join(each.digest for each in pushed)
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
    except OSError as error:
        raise InvalidArgument(
            f"the digest cannot be written: {error.strerror}", where=f"--digestfile {path}"
        ) from error


VERBS = {"push": (PUSH, run_push)}
