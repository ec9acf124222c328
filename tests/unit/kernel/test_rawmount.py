"""mount(2) by the C half of ctypes."""

import pytest

from usercontainerd.kernel.rawmount import mount


def test_a_refusal_has_its_reason() -> None:
    """As root there is no such directory, as anybody else no right to mount."""
    with pytest.raises(OSError, match=r"\[Errno (1|2)\]"):
        mount(b"none", b"/nonexistent/place", b"tmpfs", 0, None)
