"""Durations and ages: read as systemd.time(7) says, shown as systemd and docker show them."""

from __future__ import annotations

from usercontainerd.base.errors import InvalidArgument

_MINUTE = 60
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR
_WEEK = 7 * _DAY
_MONTH = 30.44 * _DAY  # systemd.time(7)
_YEAR = 365.25 * _DAY
_EPOCH = 719468  # days from the first of March of the year 0 to 1970

_UNITS: dict[str, float] = {
    **dict.fromkeys(("usec", "us", "µs", "μs"), 1e-6),
    **dict.fromkeys(("msec", "ms"), 1e-3),
    **dict.fromkeys(("", "seconds", "second", "sec", "s"), 1),
    **dict.fromkeys(("minutes", "minute", "min", "m"), _MINUTE),
    **dict.fromkeys(("hours", "hour", "hr", "h"), _HOUR),
    **dict.fromkeys(("days", "day", "d"), _DAY),
    **dict.fromkeys(("weeks", "week", "w"), _WEEK),
    **dict.fromkeys(("months", "month", "M"), _MONTH),
    **dict.fromkeys(("years", "year", "y"), _YEAR),
}
MAX_DURATION = 2**63 / 1e6  # systemd counts microseconds in 64 bits
_DIGITS = "0123456789."
_HINT = 'write seconds as a number, or a text such as "90", "1min 30s" or "500ms"'


def parse_duration(value: str | float) -> float:
    """Return seconds: a number of them, or a text such as ``10s``, ``1min 30s``, ``2h`` (systemd.time(7)).

    Raises InvalidArgument for anything else, a negative or infinite duration included.
    """
    seconds = value if isinstance(value, int | float) else _parse_terms(value)
    if not 0 <= seconds < MAX_DURATION:  # NaN fails this too
        raise InvalidArgument("a duration is finite and not negative", hint=_HINT)
    return float(seconds)


def _parse_terms(text: str) -> float:
    rest = text.strip()
    if not rest or len(rest) > 100:
        raise InvalidArgument(f'"{text[:100]}" is not a duration', hint=_HINT)
    seconds = 0.0
    while rest:
        after = rest.lstrip(_DIGITS)
        number = rest[: len(rest) - len(after)]
        after = after.lstrip()
        end = next((i for i, c in enumerate(after) if c in _DIGITS or c.isspace()), len(after))
        factor = _UNITS.get(after[:end])
        if factor is None or number in {"", "."} or number.count(".") > 1:
            raise InvalidArgument(f'"{text}" is not a duration', hint=_HINT)
        seconds += float(number) * factor
        rest = after[end:].lstrip()
    return seconds


def format_duration(seconds: float) -> str:
    """Return ``1min 30s`` as systemd does: whole units, down to milliseconds; ``parse_duration`` reads it."""
    milliseconds = round(seconds * 1000)
    parts = []
    for unit, length in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000), ("ms", 1)):
        count, milliseconds = divmod(milliseconds, length)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts) or "0s"


def format_elapsed(seconds: float) -> str:
    """Return one rounded figure, in docker's words: ``About an hour``, ``3 days``."""
    count = int(seconds)
    if count < 1:
        return "Less than a second"
    if count == 1:
        return "1 second"
    if count < _MINUTE:
        return f"{count} seconds"
    if count < 2 * _MINUTE:
        return "About a minute"
    if count < _HOUR:
        return f"{count // _MINUTE} minutes"
    if round(count / _HOUR) == 1:
        return "About an hour"
    for limit, length, word in (
        (2 * _DAY, _HOUR, "hours"),
        (2 * _WEEK, _DAY, "days"),
        (60 * _DAY, _WEEK, "weeks"),
        (730 * _DAY, 30 * _DAY, "months"),
    ):
        if count < limit:
            return f"{round(count / _HOUR) if word == 'hours' else count // length} {word}"
    return f"{count // (365 * _DAY)} years"


def format_age(seconds: float) -> str:
    """Return how long ago something was, as ``docker ps`` says it: ``3 minutes ago``."""
    return f"{format_elapsed(max(0.0, seconds))} ago"


def parse_rfc3339(text: str) -> float:
    """Return a time such as an image's ``created`` in seconds since the epoch, 0 if it is none."""
    try:
        # What strptime or datetime would do, without importing them. UTC is what all builders write.
        date, _, clock = text.partition("T")
        year, month, day = map(int, date.split("-"))
        hour, minute, second = map(int, clock[:8].split(":"))
    except ValueError:
        return 0.0
    if not (clock.endswith("Z") or clock[8:].lstrip(".0123456789") in ("Z", "+00:00")):
        return _parse_with_zone(text)
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60):
        return 0.0
    # Days before a date of the proleptic Gregorian calendar, counted from a first of March.
    years = year - (month < 3)
    days = (
        365 * years + years // 4 - years // 100 + years // 400 + (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    )
    return float((days - _EPOCH) * _DAY + hour * _HOUR + minute * _MINUTE + second)


def _parse_with_zone(text: str) -> float:
    from datetime import datetime

    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


def parse_moment(text: str, now: float) -> float:
    """Return seconds since the epoch of what docker's ``until=`` takes: RFC 3339, such seconds, or ``24h`` for so
    long before ``now``.

    Raises InvalidArgument.
    """
    plain = text.strip()
    if plain.replace(".", "", 1).isdecimal():
        return float(plain)
    moment = parse_rfc3339(plain) or _parse_with_zone(plain)
    if moment:
        return moment
    try:
        return now - parse_duration(plain)
    except InvalidArgument as error:
        raise InvalidArgument(
            f'"{text[:100]}" is no time',
            hint="write 24h for so long ago, 2026-01-31T12:00:00Z, or seconds since the epoch",
        ) from error
