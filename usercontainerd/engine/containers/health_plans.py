"""How a container's health is checked, by its definition and its image together. Pure."""

from __future__ import annotations

from usercontainerd.definition.health import (
    MAX_RETRIES,
    MAX_TIME,
    OFF,
    SHELL,
    HealthPlan,
    merge_health,
    plan_command,
    plan_health,
)
from usercontainerd.definition.model import Health
from usercontainerd.definition.values import MAX_ARGUMENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.definition.model import Definition
    from usercontainerd.oci.image import ImageConfiguration


def find_health_plan(definition: Definition, image: ImageConfiguration) -> HealthPlan | None:
    """Return how the container's health is checked, None if it is not."""
    return plan_health(merge_image_health(definition.health, image))


def merge_image_health(own: Health, image: ImageConfiguration) -> Health:
    """Return ``own`` with what an image's HEALTHCHECK says where that is silent."""
    check = image.healthcheck
    if check is None or not plan_command(check.test) or own.command is not None:
        return own
    command = check.test
    if command[0] == "CMD-SHELL" and image.shell not in ((), SHELL):
        command = ("CMD", *plan_command(command, image.shell))
    said = Health(
        command if all(map(_can_be_run, command)) else OFF,
        interval=_limit(check.interval, shortest=1.0),
        timeout=_limit(check.timeout),
        retries=min(check.retries, MAX_RETRIES) if check.retries > 0 else None,
        start_period=_limit(check.start_period),
        start_interval=_limit(check.start_interval),
    )
    return merge_health(own, said)


def _can_be_run(word: str) -> bool:
    """A NUL ends a word for the kernel, and it takes none that is too long."""
    return "\0" not in word and len(word.encode(errors="replace")) <= MAX_ARGUMENT


def _limit(seconds: float, shortest: float = 0.001) -> float | None:
    """What an image asks for may be no time at all, negative, or an age of the world."""
    return min(max(seconds, shortest), MAX_TIME) if seconds > 0 else None
