"""Health checks: the keys of ``[health]``, and what they mean together with what an image says. Pure."""

from __future__ import annotations

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.base.records import dataclass, replace
from usercontainerd.base.times import parse_duration
from usercontainerd.definition.model import Health, HealthAction
from usercontainerd.definition.values import report_type, take_argument, take_integer, take_list

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.definition.place import Place

# docker's ``HEALTHCHECK``.
INTERVAL = 30.0
TIMEOUT = 30.0
RETRIES = 3
START_INTERVAL = 5.0
SHELL = ("/bin/sh", "-c")
OFF = ("NONE",)
MAX_TIME = 366 * 86400.0  # seconds; an image may ask for any
MAX_RETRIES = 1_000_000
_FIRST_CHECK = 1.0  # second after the start, where there is no start period
_MAX_EARLY = 20  # checks in the start period that come more often than others


@dataclass(frozen=True)
class HealthPlan:
    """All that is known: ``command`` are words, times are in seconds, an ``interval`` of 0 is no timer."""

    command: tuple[str, ...]
    interval: float = INTERVAL
    timeout: float = TIMEOUT
    retries: int = RETRIES
    start_period: float = 0.0
    start_interval: float = START_INTERVAL
    on_failure: HealthAction = HealthAction.NONE

    @property
    def early(self) -> tuple[float, ...]:
        """When the checks of the start period are, in seconds from the start; the others follow the last one."""
        if not self.start_period:
            return (_FIRST_CHECK,)
        step = max(self.start_interval, self.start_period / _MAX_EARLY)
        times = tuple(step * turn for turn in range(1, int(self.start_period / step) + 1))
        return times or (min(step, self.interval),)


def merge_health(own: Health, image: Health) -> Health:
    """Return what the definition says, and the image where that is silent.

    A command of the definition's own takes nothing from the image, as in docker and podman.
    """
    if own.command is not None:
        return own
    keys = ("interval", "timeout", "retries", "start_period", "start_interval", "on_failure")
    said = {key: getattr(own, key) for key in keys}
    return replace(image, **{key: value for key, value in said.items() if value is not None})


def plan_health(health: Health, shell: tuple[str, ...] = SHELL) -> HealthPlan | None:
    """Return how the health is checked, None if it is not; ``shell`` is what a text is handed to."""
    command = plan_command(health.command or OFF, shell)
    if not command:
        return None
    return HealthPlan(
        command,
        interval=INTERVAL if health.interval is None else _limit(health.interval),
        timeout=_limit(health.timeout or TIMEOUT),
        retries=health.retries or RETRIES,
        start_period=_limit(health.start_period or 0.0),
        start_interval=_limit(health.start_interval or START_INTERVAL),
        on_failure=health.on_failure,
    )


def plan_command(test: tuple[str, ...], shell: tuple[str, ...] = SHELL) -> tuple[str, ...]:
    """Return the words of docker's ``Test``; none if there is nothing to run."""
    kind, *words = test or OFF
    if kind == "CMD":
        return tuple(words)
    return (*(shell or SHELL), words[0]) if kind == "CMD-SHELL" and words and words[0].strip() else ()


def _limit(seconds: float) -> float:
    return min(max(seconds, 0.0), MAX_TIME)


def take_command(value: object, place: Place) -> tuple[str, ...] | None:
    """A list of words, a text for the shell, or ``none``: docker's ``Test``."""
    if isinstance(value, str):
        text = take_argument(value, place)
        if text is None:
            return None
        return OFF if text.strip() in ("", "none") else ("CMD-SHELL", text)
    words = take_list(value, place, take_argument, "a string or an array of strings")
    if words is None:
        return None
    return ("CMD", *words) if words and words != ("none",) else OFF


def take_time(value: object, place: Place) -> float | None:
    """Seconds: a number, or a text of systemd.time(7) or Go."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        report_type('a duration such as 10 or "1min 30s"', value, place)
        return None
    try:
        seconds = parse_duration(place.expand(value) if isinstance(value, str) else value)
    except InvalidArgument as error:
        place.error(f"{error.what}; {error.hint}")
        return None
    if seconds <= MAX_TIME:
        return seconds
    place.error("is longer than a year")
    return None


def take_interval(value: object, place: Place) -> float | None:
    """Seconds, or ``disable``: 0, by hand only."""
    if value == "disable":
        return 0.0
    seconds = take_time(value, place)
    if seconds is None or seconds == 0 or seconds >= 1:
        return seconds
    place.error("is less than a second; 0 has nothing checked but by hand")
    return None


def take_retries(value: object, place: Place) -> int | None:
    """A number of failures."""
    return take_integer(value, place, 1, MAX_RETRIES)
