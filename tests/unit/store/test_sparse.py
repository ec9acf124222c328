"""Sparse files in all of GNU's forms: holes stay holes, and what does not add up is refused."""

import io
import tarfile

import pytest

from tests.support.fakeregistry import build_tar, file, member
from tests.support.memoryfs import MemoryFileSystem
from tests.unit.store.test_recipe import unpack_and_rebuild
from tests.unit.store.test_tar import BytesSource, header
from tests.unit.store.test_unpack import IDS
from usercontainerd.base.errors import InvalidFormat
from usercontainerd.store.sparse import MAX_SEGMENTS
from usercontainerd.store.tarreader import TarReader
from usercontainerd.store.unpack import Unpacker

SEGMENTS = [(0, 5), (1000, 700), (5000, 1), (9000, 0)]
DATA = b"start" + b"m" * 700 + b"e"
WHOLE = b"start".ljust(1000, b"\0") + (b"m" * 700).ljust(4000, b"\0") + b"e".ljust(4000, b"\0")


def number(value: int) -> bytes:
    return b"%011o\0" % value


def build_old(segments: list[tuple[int, int]], size: int, data: bytes) -> bytes:
    pairs = [number(offset) + number(length) for offset, length in segments]
    first, rest = pairs[:4], pairs[4:]
    head = header(
        at0=b"dir/old\0", at124=number(len(data)), at156=b"S", at257=b"ustar  \0", at345=bytes(41),
        at386=b"".join(first).ljust(96, b"\0"), at482=bool(rest), at483=number(size),
    )[:512]  # fmt: skip
    blocks = b""
    while rest:
        part, rest = rest[:21], rest[21:]
        blocks += b"".join(part).ljust(504, b"\0") + bytes([bool(rest)]) + bytes(7)
    return bytes(head) + blocks + data + bytes(-len(data) % 512)


def build_pax(
    version: str, size: int = 9000, segments: list[tuple[int, int]] = SEGMENTS, data: bytes = DATA
) -> bytes:
    numbers = [n for segment in segments for n in segment]
    headers = {"GNU.sparse.name": "dir/real", "GNU.sparse.major": version[0], "GNU.sparse.minor": version[2]}
    if version == "1.0":
        headers["GNU.sparse.realsize"] = str(size)
        text = b"".join(b"%d\n" % n for n in [len(segments), *numbers])
        data = text + bytes(-len(text) % 512) + data
    else:
        headers["GNU.sparse.size"] = str(size)
        headers["GNU.sparse.map"] = ",".join(map(str, numbers))
    return build_tar(file("GNUSparseFile.1/real", data, mtime=7, pax_headers=headers))


def build_oldest() -> bytes:
    """Format 0.0: the same keys again and again, which tarfile does not write."""
    records = [("GNU.sparse.size", 9000), ("GNU.sparse.numblocks", len(SEGMENTS))]
    for offset, length in SEGMENTS:
        records += [("GNU.sparse.offset", offset), ("GNU.sparse.numbytes", length)]
    text = b""
    for key, value in records:
        body = f" {key}={value}\n".encode()
        text += b"%d" % (len(body) + 2) + body
    extended = (
        header(at0=b"pax\0", at156=b"x", at124=number(len(text)))[:512] + text + bytes(-len(text) % 512)
    )
    return bytes(extended) + build_tar(file("dir/oldest", DATA))


def read_all(data: bytes) -> MemoryFileSystem:
    fs = MemoryFileSystem()
    Unpacker(fs, IDS, max_size=10_000).unpack(TarReader(BytesSource(data)))
    return fs


ARCHIVES = {
    "dir/old": build_old(SEGMENTS, 9000, DATA),
    "dir/oldest": build_oldest()[:-1024],
    "dir/real": build_pax("0.1")[:-1024],
    "./dir/real": build_pax("1.0")[:-1024],
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_formats(name: str) -> None:
    data = ARCHIVES[name] + build_tar(file("next", b"n"))
    fs = read_all(data)
    assert bytes(fs.node(name).content) == WHOLE
    with tarfile.open(fileobj=io.BytesIO(ARCHIVES[name] + bytes(1024))) as archive:
        (info,) = archive.getmembers()
        extracted = archive.extractfile(info)
        assert extracted is not None
        assert extracted.read() == WHOLE


@pytest.mark.parametrize("name", ARCHIVES)
def test_rebuilt(name: str) -> None:
    data = ARCHIVES[name] + bytes(1024) + b"tail"
    assert unpack_and_rebuild(data) == data
    twice = ARCHIVES[name] + build_tar(file(name, b"again"))
    assert unpack_and_rebuild(twice) == twice


def test_many_segments() -> None:
    segments = [(n * 10, 1) for n in range(150)]
    whole = b"".join(b"x" + bytes(9) for _ in range(150))
    assert read_all(build_old(segments, 1500, b"x" * 150)).node("dir/old").content == whole
    assert read_all(build_pax("1.0", 1500, segments, b"x" * 150)).node("dir/real").content == whole


def test_nothing_but_a_hole() -> None:
    assert read_all(build_pax("1.0", 9000, [(9000, 0)], b"")).node("dir/real").content == bytes(9000)
    assert read_all(build_pax("1.0", 0, [], b"")).node("dir/real").content == b""


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (build_old([(0, 5), (4, 5)], 100, b"x" * 10), "overlap"),
        (build_old([(0, 5), (96, 5)], 100, b"x" * 10), "beyond its end"),
        (build_old([(0, 5)], 100, b"x" * 10), "do not add up"),
        (build_old([(n * 2, 1) for n in range(9)], 100, b"x" * 9)[:600], "middle of the map"),
        (build_old([(0, 1)], 1 << 32, b"x"), "more than the 10000 bytes"),
        (build_pax("1.0", 10_001), "more than the 10000 bytes"),
        (build_pax("1.0", segments=[(0, 6)] * (MAX_SEGMENTS + 1)), "too many segments"),
        (build_pax("0.1", segments=[(5, 6), (0, 1)], data=b"x" * 7), "overlap"),
        (build_tar(file("x", b"no number\n", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0",
                                                         "GNU.sparse.realsize": "5"})), "cut off"),
        (build_tar(file("x", b"n".ljust(600, b"\n"), pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0",
                                                                  "GNU.sparse.realsize": "5"})), "other than numbers"),
        (build_tar(file("x", pax_headers={"GNU.sparse.major": "2", "GNU.sparse.minor": "0"})), "format of the future"),
        (build_tar(file("x", pax_headers={"GNU.sparse.map": "0,1"})), "has no size"),
        (build_tar(file("x", pax_headers={"GNU.sparse.map": "0,1,2", "GNU.sparse.size": "5"})), "an odd one"),
        (build_tar(file("x", pax_headers={"GNU.sparse.offset": "1"})), "an odd one|has no size"),
        (build_tar(file("x", pax_headers={"GNU.sparse.numbytes": "1"})), "out of order"),
        (build_tar(member("d", tarfile.DIRTYPE, pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": "5"})),
         "not a regular file"),
    ],
)  # fmt: skip
def test_refused(data: bytes, message: str) -> None:
    with pytest.raises(InvalidFormat, match=message):
        read_all(data)
