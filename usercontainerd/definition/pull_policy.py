"""When an image is pulled: apart from ``model``, whose many classes a pull does not need."""

from __future__ import annotations

from enum import StrEnum


class PullPolicy(StrEnum):
    """When the image is pulled at start."""

    MISSING = "missing"
    ALWAYS = "always"
    NEWER = "newer"
    NEVER = "never"
