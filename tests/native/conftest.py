"""Fixtures of the native lane."""

from __future__ import annotations

from tests.support.containers import container
from tests.support.images import images

__all__ = ["container", "images"]
