"""Where the store keeps what, below ``~/.local/share/usercontainerd``::

    blobs/sha256/HEX      manifests, indexes and configurations, byte for byte as the registry had them; compressed
                          layers only where the configuration says so, or where a layer has no recipe
    layers/HEX/diff       a layer by its diffID, unpacked as a rootless overlay mount wants it
    layers/HEX/layer.json what it is and which blobs it came from
    layers/HEX/links      hard links to files of lower layers, which were copied from there
    layers/HEX/recipe     what its exact tar archive has beside the contents of files; empty or missing: no recipe
    images/HEX.json       an image by the digest of its configuration
    indexes/HEX.json      an index (manifest list) that is made here
    names/…               one file for each name, leading to an image or an index
    locks/                one empty file for each thing that is locked
    partial/…             compressed layers that have come in part, for the next pull to go on with
    format                a line ``usercontainerd-store NUMBER``: which versions can use the store
    tmp/pull-…/           what is being made; ``lock`` in it is held as long as somebody is at it
    trash/                renamed here first, deleted afterwards, inside the user namespace

What counts is only ever made by a rename of something complete, and only ever unmade by a rename into the
trash.
"""

from __future__ import annotations

import os

from usercontainerd.base.errors import InvalidFormat, StoreError
from usercontainerd.kernel.atomicfile import explain_write_error
from usercontainerd.kernel.trees import make_private_directories

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.base.paths import Paths
    from usercontainerd.base.typedjson import JsonValue
    from usercontainerd.oci.digest import Digest

# Goes up when an older version could misread or damage what is there. A key more in a record is no reason: older ones
# pass over it. docs/releasing.md has what it promises.
FORMAT = 1
RECORD_VERSION = 1
_FORMAT_NAME = "usercontainerd-store"

DIRECTORIES = (
    "blobs/sha256",
    "blobs/sha512",
    "layers",
    "images",
    "indexes",
    "names",
    "locks",
    "partial",
    "tmp",
    "trash",
)


class Store:
    """The directories of one user's store; nothing is made before ``prepare``.

    ``runtime`` is where the bundles of containers are, which use the layers.
    """

    __slots__ = ("root", "runtime")

    def __init__(self, paths: Paths) -> None:
        self.root = paths.data
        self.runtime = paths.runtime

    @property
    def layers(self) -> str:
        """Directory of the unpacked layers."""
        return f"{self.root}/layers"

    @property
    def images(self) -> str:
        """Directory of the image records."""
        return f"{self.root}/images"

    @property
    def indexes(self) -> str:
        """Directory of the records of indexes."""
        return f"{self.root}/indexes"

    def has_indexes(self) -> bool:
        """Tell whether there is any index: what reads them is imported only then."""
        try:
            return bool(os.listdir(self.indexes))
        except FileNotFoundError:
            return False

    @property
    def names(self) -> str:
        """Directory of the name records."""
        return f"{self.root}/names"

    @property
    def staging(self) -> str:
        """Directory of what is being made."""
        return f"{self.root}/tmp"

    @property
    def partial(self) -> str:
        """Directory of compressed layers that have come in part."""
        return f"{self.root}/partial"

    @property
    def trash(self) -> str:
        """Directory of what waits for its deletion."""
        return f"{self.root}/trash"

    def blob(self, digest: Digest) -> str:
        """File of a blob, whether it is there or not."""
        return f"{self.root}/blobs/{digest.algorithm}/{digest.hex}"

    def layer(self, diff_id: Digest) -> str:
        """Directory of a layer, whether it is there or not."""
        return f"{self.layers}/{diff_id.hex}"

    def lock(self, name: str) -> str:
        """File to lock for ``name``."""
        return f"{self.root}/locks/{name}"

    def check_format(self) -> bool:
        """Tell whether the store says its format; none before ``prepare``. Raises ``StoreError`` for a newer one."""
        path = f"{self.root}/format"
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                words = file.read(256).split()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise StoreError(f"cannot read: {error.strerror}", where=path) from error
        if len(words) != 2 or words[0] != _FORMAT_NAME or not words[1].isdecimal():
            raise StoreError(
                "this should say the store's format, and does not",
                where=path,
                hint="remove the file if no later version of usercontainerd has used this store",
            )
        if int(words[1]) > FORMAT:
            raise StoreError(
                f"a later version of usercontainerd has made this store: its format is {words[1]}, "
                f"and this version knows {FORMAT}",
                where=path,
                hint="install the later version again, or use another store: set XDG_DATA_HOME",
            )
        return True

    def prepare(self) -> None:
        """Make the directories, for the user alone. Raises ``StoreError``."""
        from usercontainerd.kernel.atomicfile import write_atomic
        from usercontainerd.kernel.placement import (
            spread_directories,
        )  # late: who only reads needs none of it

        says_format = self.check_format()
        for name in DIRECTORIES:
            path = f"{self.root}/{name}"
            try:
                make_private_directories(path)
            except OSError as error:
                raise explain_write_error(error, path) from error
        spread_directories(self.staging)
        if not says_format:
            write_atomic(f"{self.root}/format", f"{_FORMAT_NAME} {FORMAT}\n".encode())


def check_record_version(document: JsonValue) -> None:
    """Raise ``InvalidFormat`` for a record that only a later version can read."""
    version = document.get("version").integer(1)
    if version > RECORD_VERSION:
        raise InvalidFormat(
            f"a later version of usercontainerd has written this (its version is {version})",
            where=document.source,
        )


def sync_filesystem(path: str) -> None:
    """syncfs(2): everything written so far on the file system of ``path`` is on disk when this returns."""
    # One call for all files of a pull costs far less than an fsync(2) of each.
    import ctypes

    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise explain_write_error(OSError(number, os.strerror(number)), path)
    finally:
        os.close(fd)
