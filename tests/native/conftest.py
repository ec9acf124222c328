"""Fixtures of the native lane."""

from __future__ import annotations

from tests.support.bus import bus_image, no_logins
from tests.support.containers import container
from tests.support.homes import home
from tests.support.hostile import hasty
from tests.support.images import images
from tests.support.interchange import built, tools
from tests.support.places import store_place
from tests.support.pulling import context, registry
from tests.support.realregistry import secure_registry
from tests.support.signing import place, signing
from tests.support.victim import victim
from tests.support.world import unchanged_world, world_guard

__all__ = [
    "built",
    "bus_image",
    "container",
    "context",
    "hasty",
    "home",
    "images",
    "no_logins",
    "place",
    "registry",
    "secure_registry",
    "signing",
    "tools",
    "store_place",
    "unchanged_world",
    "victim",
    "world_guard",
]
