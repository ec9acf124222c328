"""Mounts: docker's ``-v`` texts, and tables with everything else."""

from __future__ import annotations

from usercontainerd.base.names import is_plain_name
from usercontainerd.definition.model import Mount, MountType
from usercontainerd.definition.paths import check_container_path, resolve_host_path, take_container_path
from usercontainerd.definition.ports import report_unknown_keys
from usercontainerd.definition.values import report_type, take_boolean, take_line, take_list, take_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.definition.place import Place

KEYS = ("type", "source", "target", "read_only", "create", "size", "mode", "options")
TYPES = tuple(str(each) for each in MountType)
# mount(8), as crun knows them. "ro" and "rw" have a key of their own.
_OPTIONS = (
    "bind rbind private rprivate shared rshared slave rslave unbindable runbindable suid nosuid dev nodev exec noexec "
    "atime noatime diratime nodiratime relatime norelatime strictatime sync async dirsync idmap tmpcopyup "
    "nocopy"  # ours: a new volume stays empty
)
OPTIONS = frozenset(_OPTIONS.split())
_NOT_YET = {
    "z": "labels for SELinux are not set yet; see chcon(1)",
    "Z": "labels for SELinux are not set yet; see chcon(1)",
}
_IMPOSSIBLE = {
    "U": "owners are not changed; use podman unshare chown or a volume",
    "O": "an overlay over a directory is not possible",
    "copy": "a new volume is filled from the image anyhow",
}
MIN_SIZE = 4096
_FORM = "write SOURCE:TARGET or SOURCE:TARGET:OPTIONS"


def take_mount(value: object, place: Place) -> Mount | None:
    """One entry of ``mounts``: ``"./data:/data:ro"``, ``"volume:/var/lib/x"``, or a table."""
    if isinstance(value, str):
        text = take_line(value, place)
        return None if text is None else _parse_text(text, place)
    if isinstance(value, dict):
        return _take_table(value, place)
    report_type('a string such as "./data:/data:ro", or a table', value, place)
    return None


def _parse_text(text: str, place: Place) -> Mount | None:
    if text.startswith("type="):
        place.error(f'"{text}": the form of --mount is written as a table: {{ type = "…", target = "…" }}')
        return None
    parts = text.split(":")
    if len(parts) > 3:
        place.error(f'"{text}" has too many colons; a path with a colon needs the form of a table')
        return None
    if len(parts) == 1:
        target = check_container_path(text, place)
        return None if target is None else _check_target(Mount(MountType.VOLUME, target), place)
    source, raw_target = parts[:2]
    if not source:
        place.error(f'"{text}" has no source; {_FORM}')
        return None
    options = _parse_options(parts[2].split(","), place) if len(parts) == 3 else ((), False)
    kind = _guess_type(source)
    resolved = _resolve_source(kind, source, place)
    target = check_container_path(raw_target, place)
    if resolved is None or target is None or options is None:
        return None
    return _check_target(Mount(kind, target, resolved, read_only=options[1], options=options[0]), place)


def _guess_type(source: str) -> MountType:
    """A path has a slash, or is ``.``, ``..`` or ``~``; anything else is a volume's name, as for docker."""
    return MountType.BIND if "/" in source or source in {".", "..", "~"} else MountType.VOLUME


def _resolve_source(kind: MountType, source: str, place: Place) -> str | None:
    if kind is MountType.BIND:
        return resolve_host_path(source, place)
    if is_plain_name(source):
        return source
    place.error(f'"{source}" is no name of a volume; a path starts with /, ./ or ~/')
    return None


def _parse_options(words: list[str], place: Place) -> tuple[tuple[str, ...], bool] | None:
    """Return the options without ``ro`` and ``rw``, and whether it is read-only."""
    options: list[str] = []
    read_only = False
    good = True
    for word in words:
        if word in {"ro", "rw"}:
            read_only = word == "ro"
        elif word in _NOT_YET:
            place.warn(f'option "{word}" has no effect: {_NOT_YET[word]}')
        elif word in OPTIONS:
            options.append(word)
        else:
            good = False
            _report_option(word, place)
    return (tuple(options), read_only) if good else None


def _report_option(word: str, place: Place) -> None:
    if word in _IMPOSSIBLE:
        place.error(f'option "{word}" is not possible: {_IMPOSSIBLE[word]}')
        return
    place.error(f'"{word}" is no mount option', place.suggest(word, ("ro", "rw", *sorted(OPTIONS))))


def _check_target(mount: Mount, place: Place) -> Mount | None:
    if mount.target == "/":
        place.error("nothing can be mounted on / of the container")
        return None
    return mount


def _take_table(table: dict[str, object], place: Place) -> Mount | None:
    good = report_unknown_keys(table, KEYS, place)
    source = _take_optional(table, "source", place)
    kind = _take_type(table, source, place)
    target = None
    if "target" in table:
        target = take_container_path(table["target"], place.at("target"))
    else:
        place.error("target is missing")
    flags = {name: take_boolean(table.get(name, False), place.at(name)) for name in ("read_only", "create")}
    size = _take_size(table["size"], place.at("size")) if "size" in table else 0
    mode = _take_mode(table["mode"], place.at("mode")) if "mode" in table else 0
    listed = table.get("options", [])
    words = take_list(listed, place.at("options"), take_line)
    options = None if words is None else _parse_options(list(words), place.at("options"))
    resolved = None if kind is None or source is None else _check_source(kind, source, place)
    if kind is not None and not _check_keys_of_type(kind, table, place):
        good = False
    if kind is None or target is None or resolved is None or options is None or not good:
        return None
    if size is None or mode is None or None in flags.values():
        return None
    mount = Mount(
        kind,
        target,
        resolved,
        read_only=bool(flags["read_only"]) or options[1],
        create=bool(flags["create"]),
        size=size if "size" in table else None,
        mode=mode if "mode" in table else None,
        options=options[0],
    )
    return _check_target(mount, place)


def _take_optional(table: dict[str, object], name: str, place: Place) -> str | None:
    """Return the text of a key, "" if it is not there, None if it is wrong."""
    return take_line(table[name], place.at(name)) if name in table else ""


def _take_type(table: dict[str, object], source: str | None, place: Place) -> MountType | None:
    if "type" not in table:
        if source:
            return _guess_type(source)
        if source == "":
            place.error('type is missing: "bind", "volume" or "tmpfs"')
        return None
    text = take_line(table["type"], place.at("type"))
    if text is None or text in TYPES:
        return None if text is None else MountType(text)
    place.at("type").error(f'"{text}" is not one of "bind", "volume", "tmpfs"', place.suggest(text, TYPES))
    return None


def _check_source(kind: MountType, source: str, place: Place) -> str | None:
    if kind is MountType.TMPFS:
        if source:
            place.at("source").error("a tmpfs has no source")
            return None
        return ""
    if not source:
        if kind is MountType.BIND:
            place.error("source is missing: the path on the host")
            return None
        return ""
    return _resolve_source(kind, source, place.at("source"))


def _check_keys_of_type(kind: MountType, table: dict[str, object], place: Place) -> bool:
    """Report keys that this type of mount does not have."""
    good = True
    for name, owner in (("size", MountType.TMPFS), ("mode", MountType.TMPFS), ("create", MountType.BIND)):
        if name in table and kind is not owner:
            place.at(name).error(f"is only for {owner}, not for {kind}")
            good = False
    return good


def _take_size(value: object, place: Place) -> int | None:
    size = take_size(value, place)
    if size is not None and size < MIN_SIZE:
        place.error(f"{size} bytes are less than a page; units are K, M, G")
        return None
    return size


def _take_mode(value: object, place: Place) -> int | None:
    # TOML cannot tell 755 from a decimal number, so a number is refused.
    text = take_line(value, place, 'a string of octal digits such as "1777"')
    if text is None:
        return None
    if 0 < len(text) <= 5 and not text.strip("01234567") and int(text, 8) <= 0o7777:
        return int(text, 8)
    place.error(f'"{text}" is no file mode; write octal digits such as "1777"')
    return None
