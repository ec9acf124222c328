"""Fixtures of the tests of registries."""

from __future__ import annotations

from tests.support.registryclients import make_client, registry

__all__ = ["make_client", "registry"]
