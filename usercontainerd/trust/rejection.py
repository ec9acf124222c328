"""Why one signature does not count."""

from __future__ import annotations


class SignatureRejected(Exception):
    """One signature was weighed and found wanting; another one may still do. ``reason`` is for the user."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
