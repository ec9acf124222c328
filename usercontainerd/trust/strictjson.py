"""JSON objects that may hold exactly what is expected: what cannot be understood must not open a door.

On top of ``base.typedjson`` (which refuses duplicate keys): unknown members and ``null`` are errors too, as in
containers-policy.json(5) and containers-signature(5).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from usercontainerd.base.typedjson import JsonValue


def read_members(
    value: JsonValue, *, required: Collection[str] = (), optional: Collection[str] = ()
) -> dict[str, JsonValue]:
    """Return the members of an object that has all of ``required`` and, beyond, only ``optional`` ones.

    Raises ``InvalidFormat``.
    """
    if not isinstance(value.raw, dict):
        value.fail("must be an object")
    members = {name: value.get(name) for name, _ in value.items()}
    for name, member in members.items():
        if name not in required and name not in optional:
            known = ", ".join(sorted({*required, *optional}))
            value.fail(f"the key {name[:80]!r} is not known here (known are {known})")
        if member.is_null:
            member.fail("must not be null")
    for name in required:
        if name not in members:
            value.fail(f"the key {name!r} is missing")
    return members


def read_text(value: JsonValue) -> str:
    """Return a string that is not empty. Raises ``InvalidFormat``."""
    text = value.text()
    if not text:
        value.fail("must not be empty")
    return text


def read_base64(value: JsonValue) -> bytes:
    """Return bytes that are not none, from standard Base64 (lines may be broken). Raises ``InvalidFormat``."""
    import base64
    import binascii

    text = read_text(value).replace("\n", "").replace("\r", "")
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        value.fail("is not valid Base64")
    if not data:
        value.fail("must not be empty")
    return data
