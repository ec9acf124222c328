"""The tar reader: agreement with Python's tarfile on what is sound, and clear errors on what is not."""

import io
import tarfile
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.fakeregistry import build_tar, file, member
from usercontainerd.base.errors import InvalidFormat
from usercontainerd.store.tar import MAX_SPECIAL, Entry, parse_pax, parse_pax_time
from usercontainerd.store.tarreader import TarReader


class BytesSource:
    """A source that gives small pieces."""

    def __init__(self, data: bytes, step: int = 700) -> None:
        self.data = io.BytesIO(data)
        self.step = step

    def take(self, count: int) -> bytes:
        return self.data.read(count)

    def pieces(self, count: int) -> Iterator[memoryview]:
        while count and (piece := self.data.read(min(count, self.step))):
            count -= len(piece)
            yield memoryview(piece)


def read(data: bytes) -> list[tuple[Entry, bytes]]:
    reader = TarReader(BytesSource(data))
    result = []
    while (entry := reader.read_entry()) is not None:
        result.append((entry, b"".join(reader.content())))
    return result


def header(**changes: bytes | int) -> bytearray:
    """A header whose fields can be damaged by offset: ``f"at{offset}"``."""
    data = bytearray(build_tar(file("x", b"abc"), form=tarfile.USTAR_FORMAT))
    for key, value in changes.items():
        offset = int(key.removeprefix("at"))
        piece = value if isinstance(value, bytes) else bytes([value])
        data[offset : offset + len(piece)] = piece
    data[148:156] = b"        "
    data[148:156] = b"%06o\0 " % sum(data[:512])
    return data


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_formats(form: int) -> None:
    long = "d" * 90 + "/" + "f" * 60 if form == tarfile.USTAR_FORMAT else "d/" * 200 + "f" * 200
    entries = read(
        build_tar(
            member("dir", tarfile.DIRTYPE, mode=0o1755),
            file(long, b"content" * 200, uid=5, gid=6, mtime=1_700_000_000, mode=0o4711),
            member("link", tarfile.SYMTYPE, linkname="target" if form == tarfile.USTAR_FORMAT else "t" * 300),
            member("hard", tarfile.LNKTYPE, linkname="dir/x"),
            member("fifo", tarfile.FIFOTYPE),
            member("null", tarfile.CHRTYPE, devmajor=1, devminor=3),
            file("empty"),
            form=form,
        )
    )
    names = [entry.name.rstrip(b"/") for entry, _ in entries]
    assert names == [b"dir", long.encode(), b"link", b"hard", b"fifo", b"null", b"empty"]
    kinds = b"".join(entry.type for entry, _ in entries)
    assert kinds == b"5021630"
    regular, content = entries[1]
    assert content == b"content" * 200
    assert (regular.uid, regular.gid, regular.mode) == (5, 6, 0o4711)
    assert regular.mtime == 1_700_000_000 * 10**9
    assert entries[2][0].linkname in (b"target", b"t" * 300)
    assert (entries[5][0].major, entries[5][0].minor) == (1, 3)


def test_pax_overrides() -> None:
    headers = {
        "SCHILY.xattr.user.a": "1",
        "SCHILY.xattr.security.capability": "\x01\x02",
        "SCHILY.acl.access": "user::rw-",
        "mtime": "1.5",
        "uid": "3000000",
        "comment": "x",
    }
    ((entry, content),) = read(build_tar(file("größe", b"abc", pax_headers=headers, gid=1 << 22)))
    assert entry.name == "größe".encode()
    assert entry.xattrs == {b"user.a": b"1", b"security.capability": b"\x01\x02"}
    assert entry.mtime == 1_500_000_000
    assert (entry.uid, entry.gid) == (3_000_000, 1 << 22)
    assert content == b"abc"


def test_base_256() -> None:
    huge = build_tar(member("x", uid=1 << 40, mtime=-5), form=tarfile.GNU_FORMAT)
    ((entry, _),) = read(huge)
    assert entry.uid == 1 << 40
    assert entry.mtime == -5 * 10**9


def test_oddities_that_are_tolerated() -> None:
    # a directory in the manner of Unix version 7
    ((entry, _),) = read(bytes(header(at0=b"dir/", at156=0, at124=b"00000000000\0"))[:512])
    assert entry.type == b"5"
    # no end-of-archive mark
    assert len(read(build_tar(file("x", b"a"))[:1024])) == 1
    # a global PAX header
    data = build_tar(file("x"))
    assert len(read(bytes(tarfile.TarInfo.create_pax_global_header({"path": "evil"})) + data)) == 1
    assert read(bytes(tarfile.TarInfo.create_pax_global_header({"path": "evil"})) + data)[0][0].name == b"x"
    assert read(b"") == []
    assert read(b"\0" * 10240) == []
    # content that nobody asks for
    reader = TarReader(BytesSource(build_tar(file("a", b"x" * 5000), file("b"))))
    assert [entry.name for entry in iter(reader.read_entry, None)] == [b"a", b"b"]
    # a link's size field does not count
    assert len(read(bytes(header(at156=b"2", at124=b"00000000005\0")[:512]) + bytes(header()))) == 2


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"x", "middle of a header"),
        (bytes(header())[:513], "middle of a file"),
        (bytes(header())[:515], "middle of a file"),
        (bytes(header())[:100] + b"9" + bytes(header())[101:], "checksum"),
        (b"\1" * 512, "checksum"),
        (bytes(header(at124=b"0000000000z\0")), "size field is not an octal"),
        (bytes(header(at124=b"\xff" * 12)), "size is negative"),
        (bytes(header(at156=b"Z")), "unknown type"),
        (bytes(header(at156=b"S")), "do not add up"),
        (bytes(header(at156=b"V")), "unknown type"),
        (bytes(header(at156=b"L", at124=b"77777777777\0")), "longer than the 1048576"),
        (bytes(header(at156=b"x", at124=b"77777777777\0")), "longer than the 1048576"),
        (bytes(header(at156=b"x")), "PAX record"),
        (bytes(header(at156=b"x", at124=b"00000100000\0"))[:600], "middle of an extended header"),
        (build_tar(file("x", pax_headers={"GNU.sparse.major": "1"})), "sparse file"),
        (build_tar(file("x", pax_headers={"path": "a\0b"})), "NUL"),
        (
            build_tar(file("x", pax_headers={"SCHILY.xattr.user.x": "v" * 70_000})),
            "impossible extended attribute",
        ),
        (b"\0" * 512 + bytes(header()), "follows the end-of-archive mark"),
    ],
)
def test_refused(data: bytes, message: str) -> None:
    with pytest.raises(InvalidFormat, match=message):
        read(data)


@pytest.mark.parametrize(
    "data",
    [
        b"5 a=b",
        b"x a=b\n",
        b"6 ab\n",
        b"99 a=b\n",
        b"0 a=b\n",
        b"-6 a=b\n",
        b"6 a=bX",
        b"5 =b\n",
        b" 6 a=b\n",
        b"6\n",
    ],
)
def test_bad_pax_records(data: bytes) -> None:
    with pytest.raises(InvalidFormat, match="PAX record"):
        parse_pax(data)


def test_pax_records() -> None:
    assert parse_pax(b"6 a=b\n8 c=d=e\n8 x=y\nz\n6 a=c\n") == {b"a": b"c", b"c": b"d=e", b"x": b"y\nz"}
    assert parse_pax(b"") == {}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"1", 10**9),
        (b"1.5", 1_500_000_000),
        (b"-1.25", -1_250_000_000),
        (b"0.0000000019", 1),
        (b"3.", 3 * 10**9),
    ],
)
def test_pax_times(text: bytes, value: int) -> None:
    assert parse_pax_time(text) == value


@pytest.mark.parametrize("text", [b"", b"x", b"1e5", b"--1", b"1.x", b"9" * 20, b"\xc2\xb2"])
def test_bad_pax_times(text: bytes) -> None:
    with pytest.raises(InvalidFormat, match="PAX time"):
        parse_pax_time(text)


_name = st.text(alphabet="abc/.é", min_size=1, max_size=300)
_entries = st.lists(
    st.tuples(
        _name,
        st.sampled_from([b"0", b"1", b"2", b"5", b"6"]),
        st.binary(max_size=2000),
        st.integers(0, 2**34),
    ),
    max_size=5,
)


@given(_entries, st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_agrees_with_tarfile(entries: list[tuple[str, bytes, bytes, int]], form: int) -> None:
    members = []
    for name, kind, content, number in entries:
        info = member(name.rstrip("/") or "x", kind, uid=number, mtime=number)
        if kind in (b"1", b"2"):
            info.linkname = name
        members.append((info, content if kind == b"0" else b""))
    data = build_tar(*members, form=form)
    ours = read(data)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        theirs = archive.getmembers()
        assert len(ours) == len(theirs)
        for (entry, content), info in zip(ours, theirs, strict=True):
            assert entry.name.rstrip(b"/").decode() == info.name
            assert entry.linkname.decode() == info.linkname
            assert (entry.uid, entry.mtime // 10**9) == (info.uid, info.mtime)
            if info.isreg():
                extracted = archive.extractfile(info)
                assert extracted is not None
                assert extracted.read() == content


_seed = build_tar(
    file("a" * 200, b"x" * 100, pax_headers={"mtime": "1.5"}),
    member("l", tarfile.SYMTYPE, linkname="y" * 200),
)


@given(
    st.lists(st.tuples(st.integers(0, len(_seed) - 1), st.integers(0, 255)), max_size=6),
    st.integers(0, len(_seed)),
)
@example([], 0)
def test_damage_gives_only_our_errors(changes: list[tuple[int, int]], length: int) -> None:
    data = bytearray(_seed)
    for at, value in changes:
        data[at] = value
    for start in range(0, len(data) - 511, 512):
        block = data[start : start + 512]
        if block[257:262] == b"ustar":  # keep the checksums right, so that the damage gets through
            block[148:156] = b"        "
            data[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    try:
        read(bytes(data[:length]))
    except InvalidFormat:
        pass


def test_special_limit_is_what_go_has() -> None:
    assert MAX_SPECIAL == 1 << 20
