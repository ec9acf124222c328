"""Reading files that are small or wrong: configuration, records, signatures."""

from __future__ import annotations

import os

from usercontainerd.base.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.base.errors import UsercontainerError


def read_small_file(
    path: str, limit: int, failure: type[UsercontainerError] = HostError, *, what: str = ""
) -> bytes | None:
    """Return a file's content, None if there is none.

    Raises ``failure`` for one that cannot be read or has more than ``limit`` bytes; ``what`` it is may begin the
    message.
    """
    start = f"{what} " if what else ""
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise failure(f"{start}cannot be read: {os.strerror(error.errno or 0)}", where=path) from error
    if len(data) > limit:
        raise failure(f"{start}is longer than the {limit} bytes allowed", where=path)
    return data
