"""Headers that others read as they were meant."""

import io
import tarfile

from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.store.test_tar import read
from usercontainerd.store import tar
from usercontainerd.store.tar import BLOCK, Entry, parse_pax, parse_pax_time
from usercontainerd.store.tarwriter import END, build_header, render_pax, render_pax_time

_name = st.lists(st.text("abé", min_size=1, max_size=120), min_size=1, max_size=5).map("/".join)
_entry = st.builds(
    Entry,
    _name.map(str.encode),
    st.sampled_from([tar.REGULAR, tar.HARD_LINK, tar.SYMLINK, tar.DIRECTORY, tar.FIFO]),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 1 << 32),
    gid=st.integers(0, 1 << 32),
    mtime=st.integers(-(1 << 62), 1 << 62),
    linkname=_name.map(str.encode),
    xattrs=st.dictionaries(st.sampled_from([b"user.a", b"user.b"]), st.binary(max_size=600)),
)


def fields(entry: Entry) -> tuple[object, ...]:
    return (
        entry.name, entry.type, entry.mode, entry.uid, entry.gid, entry.size, entry.mtime, entry.linkname, entry.xattrs,
    )  # fmt: skip


@given(_entry)
@example(Entry(b"d" * 155 + b"/" + b"f" * 100))
@example(Entry(b"d" * 156 + b"/" + b"f" * 100))
@example(Entry(b"d" * 155 + b"/" + b"f" * 101))
@example(Entry(b"f" * 100, mtime=-1))
@example(Entry(b"f" * 101, mtime=-1_500_000_000, uid=0o7777777, gid=0o10000000))
def test_both_readers_agree(entry: Entry) -> None:
    header = build_header(entry)
    assert len(header) % BLOCK == 0
    ((back, _),) = read(header + END)
    assert fields(back) == fields(entry)
    with tarfile.open(fileobj=io.BytesIO(header + END)) as archive:
        (info,) = archive.getmembers()
    assert info.name.encode("utf-8", "surrogateescape") == entry.name
    assert (info.type, info.mode, info.uid, info.gid) == (entry.type, entry.mode, entry.uid, entry.gid)
    assert info.linkname.encode("utf-8", "surrogateescape") == entry.linkname
    assert build_header(entry) == header


def test_plain_entries_have_plain_headers() -> None:
    assert len(build_header(Entry(b"a/" * 70 + b"x", mtime=1_700_000_000 * 10**9, uid=65536))) == BLOCK
    assert len(build_header(Entry(b"x", mtime=1))) == 3 * BLOCK


def test_sizes_beyond_octal() -> None:
    entry = Entry(b"x", size=1 << 40)
    assert parse_pax(build_header(entry)[BLOCK : 2 * BLOCK].rstrip(b"\0")) == {b"size": b"%d" % (1 << 40)}


@given(st.integers(-(1 << 70), 1 << 70))
def test_times(time: int) -> None:
    assert parse_pax_time(render_pax_time(time)) == time


@given(
    st.dictionaries(
        st.binary(min_size=1, max_size=120).filter(lambda k: b"=" not in k and not k.startswith(b"GNU")),
        st.binary(max_size=1100),
    )
)
def test_records(records: dict[bytes, bytes]) -> None:
    assert parse_pax(render_pax(records)) == records
