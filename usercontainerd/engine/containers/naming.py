"""Names for containers that were given none: an adjective and a noun, as docker has it."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_ADJECTIVES = (
    "able amber ample apt avid bold brave bright brisk broad calm candid clear clever cosy crisp curious daring "
    "deep eager early easy fair fast fine firm fond frank free fresh gentle glad golden grand green handy happy "
    "hardy humble jolly keen kind large light lively loyal lucid lucky mellow merry mild modest neat nimble noble "
    "open patient plain polite prompt proud quick quiet rapid ready robust round sharp shiny silent simple smart "
    "smooth snug sober solid spry steady still strong sunny sure swift tidy tranquil true upbeat vast vivid warm "
    "wise witty young zesty"
)
_NOUNS = (
    "acorn alder anchor apple arrow ash aspen badger barley basin beacon beaver beech birch bison brook cedar "
    "cherry clover comet coral cove crane cricket delta dolphin dove dune eagle elm falcon fern finch fjord "
    "forest fox gecko glacier grove harbor hawk hazel heron hill iris island ivy juniper kestrel lagoon lake "
    "lantern larch lark lemon lily lynx maple marten meadow mesa moss oak ocean olive orchid otter owl pebble "
    "pelican pine plover pond poplar quail quartz raven reef ridge river robin rowan sage salmon seal sparrow "
    "spruce stone stream swan thistle tulip valley walnut walrus willow wren yew zebra"
)
ADJECTIVES = tuple(_ADJECTIVES.split())
NOUNS = tuple(_NOUNS.split())
_ATTEMPTS = 10


def generate_name(is_taken: Callable[[str], bool]) -> str:
    """Return a name that is not taken; a number follows once chance has failed a few times."""
    for attempt in range(1000):
        adjective, noun = (words[int.from_bytes(os.urandom(4)) % len(words)] for words in (ADJECTIVES, NOUNS))
        name = f"{adjective}_{noun}" if attempt < _ATTEMPTS else f"{adjective}_{noun}{attempt - _ATTEMPTS}"
        if not is_taken(name):
            return name
    return os.urandom(8).hex()
