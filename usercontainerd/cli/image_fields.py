"""What ``images --format`` can show beyond the plain list; the costly fields only if they are asked for."""

from __future__ import annotations

import time

from usercontainerd.base.errors import UsercontainerError
from usercontainerd.base.times import parse_rfc3339
from usercontainerd.cli.images import choose_digest, describe_name
from usercontainerd.cli.template import parse_template

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from usercontainerd.cli.call import Call
    from usercontainerd.cli.images import Line
    from usercontainerd.engine.images.users import ImageUsers
    from usercontainerd.store.records import ImageRecord

WHOLE = ""  # a template that asks for the object itself
FAMILY = {"ParentId", "IsDangling", "Dangling", WHOLE}
USERS = {"Containers", WHOLE}
LABELS = {"Labels", WHOLE}


class Details:
    """Labels, parents and containers of images, each read when the first field of its kind is asked for."""

    def __init__(self, call: Call, fields: set[str]) -> None:
        from usercontainerd.engine.images.family import ImageFamily
        from usercontainerd.engine.images.local import open_images

        self._images = open_images(call.context())
        self._labels = bool(fields & LABELS)
        self._family = ImageFamily(self._images, self._images.all()) if fields & FAMILY else None
        self._users = find_users_of_call(call) if fields & USERS else None

    def describe(self, record: ImageRecord) -> dict[str, Any]:
        """The costly fields that were asked for."""
        shown: dict[str, Any] = {}
        if self._labels:
            shown["Labels"] = self._read_labels(record)
        if self._family is not None:
            parent = self._family.find_parent(record)
            shown["ParentId"] = "" if parent is None else parent.id.hex
            shown["IsDangling"] = shown["Dangling"] = self._family.is_dangling(record)
        if self._users is not None:
            shown["Containers"] = len(self._users.of(record.id))
        return shown

    def _read_labels(self, record: ImageRecord) -> dict[str, str]:
        try:
            return dict(self._images.configuration(record).labels)
        except UsercontainerError:
            return {}


def find_users_of_call(call: Call) -> ImageUsers:
    """The containers that use images; without systemd those of which there are files."""
    from usercontainerd.engine.images.users import find_users

    return find_users(call.context(), call.find_manager())


def describe_lines(call: Call, lines: Sequence[Line], template: str, full: bool) -> list[dict[str, Any]]:
    """All fields that ``template`` may show of each line."""
    fields = parse_template(template).fields
    details = Details(call, fields) if fields & (FAMILY | USERS | LABELS) else None
    now = time.time()
    shown = []
    for record, name in lines:
        line = describe_name(record, name, now, full)
        common = describe_common(record)
        created = parse_rfc3339(record.created)
        clock = time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC", time.gmtime(created)) if created else "N/A"
        shown.append(
            {
                **common,
                **line,
                "Created": line["CreatedSince"],
                "CreatedAt": clock,
                "CreatedTime": clock,
                "History": ", ".join(record.name_history),
                "IsReadOnly": False,
                "ReadOnly": False,
                **(details.describe(record) if details is not None else {}),
            }
        )
    return shown


def describe_images(call: Call, lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Each image once, with the names that podman's JSON has."""
    details = Details(call, {WHOLE})
    shown = []
    for record in {record.id: record for record, _ in lines}.values():
        extra = details.describe(record)
        shown.append(
            {
                **describe_common(record),
                "ParentId": extra["ParentId"],
                "Size": record.size,
                "Labels": extra["Labels"] or None,
                "Containers": extra["Containers"],
                **({"Dangling": True} if extra["IsDangling"] else {}),
                "Digest": choose_digest(record, record.names[0] if record.names else None),
                "History": record.name_history,
                "Created": int(parse_rfc3339(record.created)),
                "CreatedAt": record.created,
            }
        )
    return shown


def describe_common(record: ImageRecord) -> dict[str, Any]:
    """What lines and JSON have in common. Pure."""
    names = [name.name for name in record.names]
    digests = [(name.reference.name, digest) for name in record.names for digest in name.digests]
    return {
        "Id": record.id.hex,
        "RepoTags": [name.name for name in record.names if name.reference.tag],
        "RepoDigests": list(dict.fromkeys(f"{name}@{digest}" for name, digest in digests)),
        "SharedSize": 0,
        "VirtualSize": record.size,
        "Names": names,
    }
