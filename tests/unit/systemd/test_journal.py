from __future__ import annotations

import pytest

from usercontainerd.base.errors import SystemdError
from usercontainerd.systemd.journal import plan_journalctl, read_last_lines

UNIT = "container@web.service"
MATCHES = ["_SYSTEMD_USER_UNIT=container@web.service", "_SYSTEMD_OWNER_UID=1000"]
START = ["/usr/bin/journalctl", "--quiet", "--no-pager", "--all", "--output=cat"]


def test_all_of_it() -> None:
    assert plan_journalctl(UNIT, 1000) == [*START, *MATCHES]


def test_options() -> None:
    plan = plan_journalctl(UNIT, 1000, follow=True, lines=5, since="-1h", until="now", invocation="ab12")
    assert plan == [
        *START,
        "--follow",
        "--lines=5",
        "--since=-1h",
        "--until=now",
        *MATCHES,
        "_SYSTEMD_INVOCATION_ID=ab12",
    ]


def test_following_starts_at_the_beginning() -> None:
    assert "--lines=all" in plan_journalctl(UNIT, 1000, follow=True)


def test_read_last_lines() -> None:
    assert read_last_lines(["/bin/sh", "-c", "printf 'one\\n\\ntwo\\377\\n'; echo no >&2"]) == (
        "one",
        "two\ufffd",
    )
    with pytest.raises(SystemdError, match="cannot read the journal"):
        read_last_lines(["/nonexistent"])
