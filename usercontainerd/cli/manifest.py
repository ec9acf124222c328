"""``usercontainer manifest`` and its verbs: indexes (manifest lists) that are made here."""

from __future__ import annotations

from usercontainerd.base.errors import InvalidArgument, NoSuchImage
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import write_error, write_output
from usercontainerd.cli.registry_options import ACCESS_OPTIONS, TLS_VERIFY, read_access
from usercontainerd.engine.images.indexes import (
    Overrides,
    add_to_index,
    annotate_image,
    annotate_index,
    create_index,
    find_index,
    forget_index,
    read_document,
    remove_from_index,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.cli.call import Call
    from usercontainerd.cli.options import Options

ABSENT = 1  # podman's status of `manifest exists`
_NO_ARTIFACTS = "files are not put into registries here"
_INSECURE = {"--insecure": "write --tls-verify=false"}
_ANNOTATION = Option("--annotation NAME=VALUE...", "annotate the entry")
_PLATFORM_OPTIONS = (
    Option("--arch ARCHITECTURE", "the architecture that the entry names"),
    Option("--features FEATURE...", "features of the processor (Docker's lists only)"),
    Option("--os OS", "the operating system that the entry names"),
    Option("--os-features FEATURE...", "features of the operating system"),
    Option("--os-version VERSION", "the version of the operating system"),
    Option("--variant VARIANT", "the variant of the architecture"),
)
CREATE = Verb(
    "manifest create",
    "LIST [IMAGE...]",
    "Make an index (manifest list), with images in it",
    (
        Option("--all", "of an IMAGE that is an index, take all images"),
        Option("-a, --amend", "add to an index of that name if there is one"),
        Option("--annotation NAME=VALUE...", "annotate the index"),
        TLS_VERIFY,
    ),
    fewest=1,
    details="A LIST without registry is in localhost. See `usercontainer manifest add` for what IMAGE can be.",
    refused=_INSECURE,
)
ADD = Verb(
    "manifest add",
    "LIST IMAGE [IMAGE...]",
    "Add images to an index",
    (
        Option("--all", "of an IMAGE that is an index, take all images, not only that of this machine"),
        _ANNOTATION,
        *_PLATFORM_OPTIONS,
        *ACCESS_OPTIONS,
    ),
    fewest=2,
    details="IMAGE is an image that is here, else one of a registry; docker://NAME means the registry's in any case.\n"
    "docker-archive:FILE, oci-archive:FILE, oci:DIRECTORY and dir:DIRECTORY are loaded first.",
    refused=dict.fromkeys(
        (
            "--artifact",
            "--artifact-config",
            "--artifact-config-type",
            "--artifact-exclude-titles",
            "--artifact-layer-type",
            "--artifact-subject",
            "--artifact-type",
        ),
        _NO_ARTIFACTS,
    ),
)
ANNOTATE = Verb(
    "manifest annotate",
    "LIST [IMAGE]",
    "Change what an index says of an image, or of itself",
    (
        _ANNOTATION,
        Option("--index", "annotate the index itself"),
        Option("--subject IMAGE", "the image that the index refers to; with --index"),
        *_PLATFORM_OPTIONS,
    ),
    fewest=1,
    most=2,
    details="IMAGE is the digest of an entry, or the name of an image that is here.",
)
INSPECT = Verb(
    "manifest inspect",
    "LIST",
    "Show an index: the one that is here, else the registry's",
    ACCESS_OPTIONS,
    fewest=1,
    most=1,
    refused=_INSECURE,
)
PUSH = Verb(
    "manifest push",
    "LIST [DESTINATION]",
    "Put an index and its images into a registry",
    (
        Option("--all", "push the images, too (default); =false where the registry has them"),
        *ACCESS_OPTIONS,
        Option("--compression-format FORMAT", "gzip or zstd, for images that are here", ("gzip", "zstd")),
        Option("--compression-level LEVEL", "gzip: 1 to 9, zstd: 1 to 22"),
        Option("--digestfile FILE", "write the digest of the pushed index into a file"),
        Option("--force-compression", "compress all layers anew, also those that the registry has already"),
        Option("-f, --format FORMAT", "oci (default) or v2s2 (Docker's manifest list)", ("oci", "v2s2")),
        Option("-p, --purge", "the same as --rm"),
        Option("-q, --quiet", "show no progress"),
        Option("--remove-signatures", "push no signatures, which are never pushed"),
        Option("--rm", "forget the index once it is in the registry"),
    ),
    fewest=1,
    most=2,
    details="Without DESTINATION the index goes to where its name says. Images that are only in a registry are copied\n"
    "from there.",
    refused={
        **_INSECURE,
        "--add-compression": "push the image in each compression, and add both",
        **dict.fromkeys(
            ("--sign-by", "--sign-by-sigstore", "--sign-by-sigstore-private-key", "--sign-passphrase-file"),
            "signing is not possible; sign with skopeo or cosign",
        ),
    },
)
REMOVE = Verb("manifest remove", "LIST IMAGE", "Take an image out of an index", fewest=2, most=2)
RM = Verb(
    "manifest rm",
    "LIST [LIST...]",
    "Remove indexes",
    (Option("-i, --ignore", "one that does not exist is no error"),),
    fewest=1,
    details="A name goes alone while the index has others.",
)
EXISTS = Verb(
    "manifest exists",
    "LIST",
    "Tell by the exit status whether there is such an index here",
    fewest=1,
    most=1,
    details="The exit status is 0 if it is here, 1 if not.",
)


def read_annotations(options: Options) -> tuple[tuple[str, str], ...]:
    """The values of ``--annotation``. Raises ``InvalidArgument``."""
    pairs = []
    for text in options.values("annotation"):
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidArgument(f'--annotation "{text}": write NAME=VALUE')
        pairs.append((name, value))
    return tuple(pairs)


def read_overrides(options: Options) -> Overrides:
    """What the options say of an entry."""
    return Overrides(
        architecture=options.value("arch"),
        os=options.value("os"),
        os_version=options.value("os-version"),
        os_features=split_list(options, "os-features"),
        variant=options.value("variant"),
        features=split_list(options, "features"),
        annotations=read_annotations(options),
    )


def split_list(options: Options, key: str) -> tuple[str, ...] | None:
    """The values of an option that takes several, also with commas; None if it was not given."""
    values = options.values(key)
    return tuple(part for value in values for part in value.split(",") if part) if values else None


def run_create(call: Call) -> int:
    """Make the index and print its ID."""
    options = call.options
    name, *members = call.words
    record = create_index(
        call.context(),
        name,
        members,
        everything=options.flag("all"),
        amend=options.flag("amend"),
        annotations=read_annotations(options),
        access=read_access(call),
    )
    write_output(f"{record.id.hex}\n")
    return 0


def run_add(call: Call) -> int:
    """Add the images and print the index's ID."""
    name, *members = call.words
    record = add_to_index(
        call.context(),
        name,
        members,
        everything=call.options.flag("all"),
        overrides=read_overrides(call.options),
        access=read_access(call),
    )
    write_output(f"{record.id.hex}\n")
    return 0


def run_annotate(call: Call) -> int:
    """Change an entry, or with ``--index`` the index."""
    options = call.options
    context = call.context()
    if options.flag("index"):
        if len(call.words) > 1 or any(options.given(each.key) for each in _PLATFORM_OPTIONS):
            raise InvalidArgument("--index annotates the index, not one of its images")
        record = annotate_index(
            context, call.words[0], read_annotations(options), subject=options.value("subject")
        )
    elif options.given("subject"):
        raise InvalidArgument("--subject is of the index", hint="with --index")
    elif len(call.words) < 2:
        raise InvalidArgument("an argument is missing", hint="the digest of the entry, or --index")
    else:
        name, image = call.words
        record = annotate_image(context, name, image, read_overrides(options))
    write_output(f"{record.id.hex}\n")
    return 0


def run_inspect(call: Call) -> int:
    """Print the index."""
    import json

    from usercontainerd.cli.json_text import dump_json

    document = read_document(call.context(), call.words[0], read_access(call))
    write_output(dump_json(json.loads(document), indent=4) + "\n")
    return 0


def run_remove(call: Call) -> int:
    """Take the entry out and print the index's ID."""
    write_output(f"{remove_from_index(call.context(), *call.words).id.hex}\n")
    return 0


def run_rm(call: Call) -> int:
    """Remove each; go on after a failure."""
    context = call.context()
    untagged: list[str] = []
    deleted: list[str] = []
    failed = False
    for word in call.words:
        try:
            names, index_id = forget_index(context, word)
        except NoSuchImage as error:
            if not call.options.flag("ignore"):
                write_error(f"Error: {error}\n")
                failed = True
            continue
        untagged += [f"Untagged: {name}\n" for name in names]
        deleted += [f"Deleted: {index_id.hex}\n"] if index_id is not None else []
    write_output("".join((*untagged, *deleted)))
    return NoSuchImage.exit_status if failed else 0


def run_exists(call: Call) -> int:
    """Look."""
    return 0 if find_index(call.context(), call.words[0]) is not None else ABSENT


def run_push(call: Call) -> int:
    """Push the index and what is in it."""
    from usercontainerd.cli.progress import Progress
    from usercontainerd.cli.push import read_push_options, write_digests
    from usercontainerd.cli.termination import catch_termination
    from usercontainerd.engine.transfers.index_pushing import push_index

    options = call.options
    wishes = read_push_options(call)
    catch_termination("the push was stopped")
    name, *rest = call.words
    destination = rest[0] if rest else None
    quiet = options.flag("quiet")
    progress = Progress(destination or name, shown=not quiet)
    try:
        pushed = push_index(
            call.context(),
            name,
            destination,
            everything=options.flag("all", True),
            remove=options.flag("rm") or options.flag("purge"),
            options=wishes,
            access=read_access(call),
            progress=progress,
        )
    finally:
        progress.finish()
    path = options.value("digestfile")
    if path is not None:
        write_digests(path, [pushed])
    if not quiet:
        write_error(f"Pushed {pushed.reference} with digest {pushed.digest}\n")
    return 0


VERBS = {
    "manifest add": (ADD, run_add),
    "manifest annotate": (ANNOTATE, run_annotate),
    "manifest create": (CREATE, run_create),
    "manifest exists": (EXISTS, run_exists),
    "manifest inspect": (INSPECT, run_inspect),
    "manifest push": (PUSH, run_push),
    "manifest remove": (REMOVE, run_remove),
    "manifest rm": (RM, run_rm),
}
