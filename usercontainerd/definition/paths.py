"""Paths of the host and of the container. By their text alone: nothing is looked up."""

from __future__ import annotations

import os

from usercontainerd.definition.values import has_control_characters, take_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.definition.place import Place

MAX_PATH = 4095  # PATH_MAX without its NUL


def take_optional_path(value: object, place: Place) -> str | None:
    """A path of the host; with ``-`` before it, as in systemd's ``EnvironmentFile=``, it need not exist."""
    text = take_line(value, place, "a path")
    path = None if text is None else resolve_host_path(text.removeprefix("-"), place)
    return f"-{path}" if path is not None and text is not None and text.startswith("-") else path


def resolve_host_path(text: str, place: Place) -> str | None:
    """Make a path of the host absolute, by its text alone."""
    reading = place.reading
    if text == "~" or text.startswith("~/"):
        text = reading.owner.home + text[1:]
    elif text.startswith("~"):
        place.error('only "~/" is understood, not another user\'s home')
        return None
    path = os.path.normpath(os.path.join(reading.directory, text))
    if path.startswith("//"):  # POSIX keeps two slashes
        path = path[1:]
    if len(path.encode(errors="replace")) > MAX_PATH:
        place.error("the path is too long")
        return None
    return path


def take_container_path(value: object, place: Place) -> str | None:
    """An absolute path in the container."""
    text = take_line(value, place, "a path")
    return None if text is None else check_container_path(text, place)


def check_container_path(text: str, place: Place) -> str | None:
    """Return the path in the container without needless slashes; report one that is relative or climbs."""
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if not text.startswith("/"):
        place.error(f'"{text}" is not absolute; a path in the container starts with /')
    elif ".." in parts:
        place.error(f'"{text}" must not contain ".."')
    elif has_control_characters(text) or len(text.encode(errors="replace")) > MAX_PATH:
        place.error("the path is too long or contains control characters")
    else:
        return "/" + "/".join(parts)
    return None


def take_seccomp(value: object, place: Place) -> str | None:
    """``default``, ``unconfined``, or a profile's path."""
    text = take_line(value, place)
    if text is None or text in {"default", "unconfined"}:
        return text
    if "/" not in text:
        place.error(f'"{text}" is neither "default" nor "unconfined" nor a path with a /')
        return None
    return resolve_host_path(text, place)
