"""Fixtures of the lane that builds, installs, upgrades and removes packages: as root in a machine of its own."""

from __future__ import annotations

from tests.support.packages import built, newer, older, removed

__all__ = ["built", "newer", "older", "removed"]
