"""Archives that somebody might make who wishes us no good, or has bad luck: the same ones for the same seed."""

from __future__ import annotations

import random
import tarfile

from tests.support.fakeregistry import build_tar, file, member

KINDS = (
    tarfile.REGTYPE, tarfile.REGTYPE, tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE,
    tarfile.FIFOTYPE, tarfile.CHRTYPE,
)  # fmt: skip
PARTS = ("a", "b", "c", "d", "..", ".", "", ".wh.a", ".wh.b", ".wh..wh..opq", "n" * 120, "\udcff", "é")
WEIGHTS = (9, 9, 9, 9, 1, 1, 1, 1, 1, 1, 1, 1, 1)
FORMS = (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)


def make_name(chance: random.Random) -> str:
    return "/".join(chance.choices(PARTS, WEIGHTS, k=chance.randint(1, 4)))


def make_member(chance: random.Random) -> tuple[tarfile.TarInfo, bytes]:
    kind = chance.choice(KINDS)
    content = chance.randbytes(chance.choice((0, 1, 100, 512, 3000))) if kind == tarfile.REGTYPE else b""
    headers = {"SCHILY.xattr.user.x": "y"} if chance.random() < 0.1 else {}
    info = member(
        make_name(chance),
        kind,
        linkname=chance.choice((make_name(chance), "/", "../../..", "/proc/self/root", "a")),
        mode=chance.choice((0o644, 0o755, 0o4755, 0, 0o7777)),
        uid=chance.choice((0, 0, 0, 1000)),
        mtime=chance.choice((0, 1_700_000_000, -5, 1.25)),
        pax_headers=headers,
    )
    return info, content


def make_archive(seed: int) -> bytes:
    """Return a well-formed archive of odd entries."""
    chance = random.Random(seed)
    members = [make_member(chance) for _ in range(chance.randint(0, 14))]
    if chance.random() < 0.2:
        members += [file(f"many/{n}", b"%d" % n) for n in range(50)]
    tail = chance.randbytes(700) if chance.random() < 0.1 else b""
    return build_tar(*members, form=chance.choice(FORMS)) + tail


def damage_archive(data: bytes, seed: int) -> bytes:
    """Return ``data`` with some of its bytes changed, in headers for the most part, or cut off."""
    chance = random.Random(seed)
    changed = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(changed))
        if chance.random() < 0.7:
            at -= at % 512
            at = min(
                at + chance.choice((0, 100, 108, 124, 130, 136, 156, 157, 257, 345, 482)), len(changed) - 1
            )
        changed[at] = chance.choice(
            (0, 0xFF, 0x80, ord("/"), ord("7"), ord("S"), ord("x"), chance.randrange(256))
        )
        if chance.random() < 0.8:  # else nothing gets past the checksums
            start = at - at % 512
            header = changed[start : start + 512]
            header[148:156] = b"        "
            changed[start + 148 : start + 156] = b"%06o\0 " % sum(header)
    return bytes(changed[: chance.randrange(len(changed))] if chance.random() < 0.1 else changed)
