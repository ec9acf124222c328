"""What unit tests share."""

from __future__ import annotations

import pytest

from usercontainerd.engine.containers import autostart
from usercontainerd.systemd import renewal


@pytest.fixture(autouse=True)
def generator(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a host with the package: else `write-units` would run, for whoever runs the tests."""
    for module in (renewal, autostart):
        monkeypatch.setattr(
            module, "find_generator", lambda: f"/usr/lib/systemd/user-generators/{renewal.GENERATOR}"
        )
