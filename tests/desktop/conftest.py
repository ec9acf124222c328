"""Fixtures of the desktop lane."""

from __future__ import annotations

from tests.support.bus import bus_image
from tests.support.containers import container
from tests.support.desktop import display, take_picture
from tests.support.images import images

__all__ = ["bus_image", "container", "display", "images", "take_picture"]
