"""Use cases of images in files: load whatever an archive or a directory holds, and pull from one by transport.

What the file is, is told by what is in it, as podman does: an OCI layout has index.json, an archive of docker's an
array in manifest.json, skopeo's ``dir:`` a manifest there.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager

from usercontainerd.base.errors import InvalidArgument, InvalidFormat, NoSuchImage
from usercontainerd.base.typedjson import parse_json
from usercontainerd.engine.archives.docker import (
    MANIFEST,
    DockerArchiveSource,
    DockerImage,
    choose_in_docker_archive,
    list_docker_archive,
)
from usercontainerd.engine.archives.input import make_seekable, open_input
from usercontainerd.engine.archives.layouts import (
    INDEX,
    DirSource,
    choose_in_layout,
    list_layout,
    parse_local_name,
)
from usercontainerd.engine.archives.members import DirectoryMembers, TarMembers
from usercontainerd.engine.images.local import ignore_progress
from usercontainerd.engine.phases import Phase
from usercontainerd.engine.registries.admission import read_admission
from usercontainerd.engine.transfers.pulling import Pull
from usercontainerd.oci.manifest import MAX_MANIFEST
from usercontainerd.oci.reference import DOCKER_HUB, Reference
from usercontainerd.store.layout import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from usercontainerd.engine.archives.members import Members
    from usercontainerd.engine.context import Context
    from usercontainerd.engine.images.local import Progress
    from usercontainerd.engine.registries.admission import Admission, Approve
    from usercontainerd.engine.transfers.sources import ImageSource
    from usercontainerd.oci.platform import Platform
    from usercontainerd.store.records import ImageRecord

TRANSPORTS = ("docker-archive", "oci-archive", "oci", "dir")
STANDARD_INPUT = "standard input"


class ArchivedImage:
    """An image in a file: where it comes from, and the full names that it is to get (possibly none)."""

    __slots__ = ("names", "source", "transport")

    def __init__(self, transport: str, source: ImageSource, names: Sequence[Reference]) -> None:
        self.transport = transport
        self.source = source
        self.names = tuple(names)


class LoadedImage:
    """What came of one: its record, and the names that it got."""

    __slots__ = ("names", "record")

    def __init__(self, record: ImageRecord, names: Sequence[Reference]) -> None:
        self.record = record
        self.names = tuple(map(str, names))


def load_images(
    context: Context,
    path: str | None,
    *,
    stdin: int = 0,
    progress: Progress = ignore_progress,
    signature_policy: str | None = None,
) -> list[LoadedImage]:
    """Load every image of a file, a directory, or (None) of what comes from the descriptor ``stdin``.

    Those before one that fails are here to stay. ``signature_policy`` is as in a pull. Raises ``PullDenied``,
    ``InvalidFormat``, ``DigestMismatch``, ``StoreError``…
    """
    admission = read_admission(context, signature_policy)
    with open_members(context, path, stdin=stdin, progress=progress) as members:
        return [
            _load(context, image, path, members.where, admission=admission, progress=progress)
            for image in list_archive(members)
        ]


def split_transport(text: str) -> tuple[str, str] | None:
    """Split ``oci-archive:FILE…`` and its like; None if ``text`` does not begin with such a word. Pure."""
    transport, colon, rest = text.partition(":")
    return (transport, rest) if colon and transport in TRANSPORTS else None


def pull_archived(
    context: Context,
    text: str,
    *,
    progress: Progress = ignore_progress,
    platform: Platform | None = None,
    signature_policy: str | None = None,
) -> list[LoadedImage]:
    """Pull ``docker-archive:FILE[:NAME|:@NUMBER]``, ``oci-archive:FILE[:NAME]``, ``oci:DIR[:NAME]`` or ``dir:DIR``.

    Raises ``NoSuchImage`` if it is not there, and as ``load_images``.
    """
    split = split_transport(text)
    if split is None:
        raise InvalidArgument(f"{text!r} does not begin with {', '.join(TRANSPORTS)} and a colon")
    transport, rest = split
    path, _, wanted = (rest, "", "") if transport == "dir" else rest.partition(":")
    if not path:
        raise InvalidArgument(f"{text!r} names no file", hint=f"{transport}:PATH")
    is_directory = transport in ("oci", "dir")
    if os.path.isdir(path) != is_directory and os.path.exists(path):
        raise InvalidArgument(
            f"{transport} is for {'directories' if is_directory else 'files'}, and this is none", where=path
        )
    admission = read_admission(context, signature_policy)
    with open_members(context, path, progress=progress) as members:
        return [
            _load(
                context,
                image,
                path,
                members.where,
                admission=admission,
                progress=progress,
                platform=platform,
            )
            for image in choose_archived(members, transport, wanted)
        ]


@contextmanager
def open_members(
    context: Context, path: str | None, *, stdin: int = 0, progress: Progress = ignore_progress
) -> Iterator[Members]:
    """Open a file, a directory or standard input for as long as the block lasts."""
    with ExitStack() as stack:
        if path is not None and os.path.isdir(path):
            members: Members = DirectoryMembers(path)
        else:
            where = STANDARD_INPUT if path is None else path
            fd = stdin if path is None else open_input(path)
            if path is not None:
                stack.callback(os.close, fd)

            def report(done: int) -> None:
                progress(Phase.READ, where, done, 0)

            seekable = make_seekable(Store(context.paths), fd, where=where, report=report)
            members = TarMembers(seekable, where)
        stack.callback(members.close)
        yield members


def list_archive(members: Members) -> list[ArchivedImage]:
    """Find out what it is, and return the images. Raises ``InvalidFormat``."""
    images = []
    if members.has(INDEX):
        transport = "oci" if isinstance(members, DirectoryMembers) else "oci-archive"
        for texts, source in list_layout(members):
            images.append(ArchivedImage(transport, source, name_layout_image(transport, texts)))
    elif members.has(MANIFEST):
        data = members.read(MANIFEST, limit=MAX_MANIFEST)
        if isinstance(parse_json(data, MANIFEST, limit=MAX_MANIFEST, source=members.where).raw, list):
            images = [_archived(members, image) for image in list_docker_archive(members)]
        else:
            images = [ArchivedImage("dir", DirSource(members), ())]
    else:
        raise InvalidFormat(
            "this holds no images",
            where=members.where,
            hint="possible are docker's archives, OCI layouts (a directory or a tar file) and skopeo's dir:",
        )
    if not images:
        raise NoSuchImage("there is no image in it", where=members.where)
    return images


def choose_archived(members: Members, transport: str, wanted: str) -> list[ArchivedImage]:
    """Return what ``wanted`` (possibly empty) means in an archive of that kind. Raises ``NoSuchImage``."""
    if transport == "docker-archive":
        meaning = parse_local_name(wanted, registry=DOCKER_HUB)
        chosen = choose_in_docker_archive(
            members, wanted, lambda name: parse_local_name(name, registry=DOCKER_HUB) == meaning
        )
        return [_archived(members, image) for image in chosen]
    if transport == "dir":
        return [ArchivedImage(transport, DirSource(members), ())]
    if wanted:
        names = name_layout_image("oci-archive", (wanted,))
        return [ArchivedImage(transport, choose_in_layout(members, wanted), names)]
    source = choose_in_layout(members, "")
    texts = next(texts for texts, _ in list_layout(members))
    return [ArchivedImage(transport, source, name_layout_image(transport, texts))]


def name_layout_image(transport: str, texts: Sequence[str]) -> tuple[Reference, ...]:
    """The full names of an image of a layout. Pure.

    In a directory a word such as ``latest`` is a mark among others, not a name.
    """
    if transport == "oci":
        texts = [text for text in texts if "/" in text]
    return tuple(name for name in map(parse_local_name, texts) if name is not None)


def _archived(members: Members, image: DockerImage) -> ArchivedImage:
    # docker writes its own short form here, which leaves out Docker Hub.
    names = [parse_local_name(text, registry=DOCKER_HUB) for text in image.names]
    return ArchivedImage(
        "docker-archive",
        DockerArchiveSource(members, image),
        [name for name in names if name is not None],
    )


def _load(
    context: Context,
    image: ArchivedImage,
    path: str | None,
    where: str,
    *,
    admission: Admission,
    progress: Progress,
    platform: Platform | None = None,
) -> LoadedImage:
    # A nameless image is called by its file in messages.
    title = image.names[0] if image.names else Reference("", where)
    with Pull(
        context,
        image.source,
        title,
        approve=_find_approval(admission, image, path),
        progress=progress,
        platform=platform,
        names=image.names,
    ) as pull:
        return LoadedImage(pull.run(), image.names)


def _find_approval(admission: Admission, image: ArchivedImage, path: str | None) -> Approve:
    if image.transport == "docker-archive":
        return admission.for_docker_archive(image.names[0] if image.names else None)
    if isinstance(image.source, DirSource):
        return admission.for_path("dir", path, image.source.read_signatures)
    return admission.for_path(image.transport, path)
