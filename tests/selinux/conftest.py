"""Fixtures of the lane where SELinux is enforcing: as root, in a machine with Debian's policy and our module."""

from __future__ import annotations

from tests.support.policy import home, ran

__all__ = ["home", "ran"]
