"""What a progress report is about."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """The phase of a report; its item is the reference, or the digest of a blob or layer."""

    RESOLVE = "resolve"
    EXISTS = "exists"  # a layer that is here already
    WAIT = "wait"  # for another process that pulls the same layer
    DOWNLOAD = "download"
    READ = "read"  # an archive that has to be kept for a while; the item is its name
    SAVE = "save"  # a layer or blob into an archive
    UNPACK = "unpack"  # all bytes have come; done = total once it is unpacked
    STORE = "store"
    PRESENT = "present"  # a push: the registry has the blob
    MOUNT = "mount"  # a push: the registry has it in another repository
    COMPRESS = "compress"
    UPLOAD = "upload"
    COPY = "copy"  # files of a container; the item is the path in it
    DONE = "done"
