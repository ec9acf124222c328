"""USER[:GROUP] against an image's own passwd and group, which may be anything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.runtime.identity import MAX_ID, Identity, resolve_identity

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
web:x:33:44::/srv:/bin/sh
1234:x:7:7::/seven:
bad:x:y:0::/:
rel:x:9:9::home:
"""
GROUP = "root:x:0:\nweb:x:44:\naudio:x:29:web,root\ntty:x:5:web\n"


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("", Identity(0, 0, (29,), "/root")),
        ("root", Identity(0, 0, (0, 29), "/root")),
        ("web", Identity(33, 44, (44, 5, 29), "/srv")),
        ("33", Identity(33, 44, (44, 5, 29), "/srv")),
        ("web:audio", Identity(33, 29, (29,), "/srv")),
        ("web:7", Identity(33, 7, (7,), "/srv")),
        ("5000", Identity(5000, 0, (0,), "/")),
        ("5000:5001", Identity(5000, 5001, (5001,), "/")),
        ("1234", Identity(7, 7, (7,), "/seven")),
        ("rel", Identity(9, 9, (9,), "/")),
    ],
)
def test_resolve(wanted: str, expected: Identity) -> None:
    assert resolve_identity(wanted, PASSWD, GROUP, where="image") == expected


@pytest.mark.parametrize(
    "wanted", ["nobody", "bad", "-1", "99999999999", str(MAX_ID + 1), "web:nogroup", "٣"]
)
def test_unknown_names_are_refused(wanted: str) -> None:
    with pytest.raises(InvalidArgument, match="image"):
        resolve_identity(wanted, PASSWD, GROUP, where="image")


@given(st.text(), st.text(), st.text())
def test_hostile_files_give_an_identity_or_an_error(wanted: str, passwd: str, group: str) -> None:
    try:
        identity = resolve_identity(wanted, passwd, group, where="image")
    except InvalidArgument:
        return
    assert 0 <= identity.uid <= MAX_ID
    assert 0 <= identity.gid <= MAX_ID
    assert identity.home.startswith("/")
