"""``usercontainer tag`` and ``untag``, and ``image exists``."""

from __future__ import annotations

from usercontainerd.base.errors import InvalidReference
from usercontainerd.cli.options import Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.cli.call import Call

ABSENT = 1  # podman's status of `image exists`
TAG = Verb(
    "tag",
    "IMAGE TARGET [TARGET...]",
    "Give an image more names",
    fewest=2,
    details="A TARGET without registry is in localhost, one without tag gets latest.\n"
    "An image that had the name loses it.",
)
UNTAG = Verb(
    "untag",
    "IMAGE [NAME...]",
    "Take names from an image",
    fewest=1,
    details="Without NAME all of them. The image stays.",
)
EXISTS = Verb(
    "image exists",
    "IMAGE",
    "Tell by the exit status whether an image is here",
    fewest=1,
    most=1,
    details="The exit status is 0 if it is here, 1 if not.",
)


def run_tag(call: Call) -> int:
    """Give the image the names."""
    from usercontainerd.engine.images.names import tag_image

    tag_image(call.context(), call.words[0], call.words[1:])
    return 0


def run_untag(call: Call) -> int:
    """Take the names from the image."""
    from usercontainerd.engine.images.names import untag_image

    untag_image(call.context(), call.words[0], call.words[1:])
    return 0


def run_exists(call: Call) -> int:
    """Look."""
    from usercontainerd.engine.images.indexes import find_index
    from usercontainerd.engine.images.local import find_image

    context, name = call.context(), call.words[0]
    try:
        return 0 if find_image(context, name) is not None or find_index(context, name) is not None else ABSENT
    except InvalidReference:
        return ABSENT  # what cannot be a name is no image's


VERBS = {"image exists": (EXISTS, run_exists), "tag": (TAG, run_tag), "untag": (UNTAG, run_untag)}
