"""Fixtures of the kernel lane."""

from __future__ import annotations

from tests.support.containers import container

__all__ = ["container"]
