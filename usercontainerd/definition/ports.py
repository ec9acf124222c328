"""Published ports: docker's ``-p`` texts and tables of the same meaning."""

from __future__ import annotations

from usercontainerd.definition.model import Port
from usercontainerd.definition.values import report_type, take_integer, take_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from usercontainerd.definition.place import Place

PROTOCOLS = ("tcp", "udp")
KEYS = ("host", "container", "length", "address", "protocol")
_FORM = "write HOST:CONTAINER, ADDRESS:HOST:CONTAINER, and /udp behind it where it is not TCP"
MAX_PORT = 65535


def take_port(value: object, place: Place) -> Port | None:
    """One entry of ``ports``: ``"8080:80"``, ``"127.0.0.1:5353:53/udp"``, ``"8000-8009:8000-8009"``, or a table."""
    if isinstance(value, str):
        text = take_line(value, place)
        return None if text is None else _parse_text(text, place)
    if isinstance(value, dict):
        return _take_table(value, place)
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_PORT:
        place.error(f'a bare number names no port of the host; write "{value}:{value}"')
        return None
    report_type('a string such as "8080:80", or a table', value, place)
    return None


def _parse_text(text: str, place: Place) -> Port | None:
    ports, slash, protocol = text.partition("/")
    rest, colon, container = ports.rpartition(":")
    if not colon:
        hint = f'; write "{text}:{text}"' if text.isascii() and text.isdigit() else ""
        place.error(f'"{text}" names no port of the host{hint or "; " + _FORM}')
        return None
    address, _, host = rest.rpartition(":")
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
        if ":" not in address:
            place.error(f'"{text}": only an IPv6 address stands in brackets')
            return None
    elif ":" in address:
        place.error(f'"{text}": an IPv6 address stands in brackets, as in "[::1]:8080:80"')
        return None
    if not host:
        place.error(f'"{text}" names no port of the host; {_FORM}')
        return None
    host_range = _parse_range(host, text, place)
    container_range = _parse_range(container, text, place)
    if host_range is None or container_range is None:
        return None
    if host_range[1] != container_range[1]:
        place.error(
            f'"{text}": the two ranges differ in length ({host_range[1]} and {container_range[1]} ports)'
        )
        return None
    checked = _check_protocol(protocol if slash else "tcp", place)
    if checked is None or not _check_address(address, place):
        return None
    return Port(host_range[0], container_range[0], host_range[1], address, checked)


def _parse_range(text: str, whole: str, place: Place) -> tuple[int, int] | None:
    """Return first port and length of ``8000`` or ``8000-8009``."""
    numbers = []
    for number in text.split("-", 1):
        if not (number.isascii() and number.isdigit() and len(number) <= 10):
            place.error(f'"{whole}": "{text}" is no port; {_FORM}')
            return None
        if not 1 <= int(number) <= MAX_PORT:
            place.error(f'"{whole}": port {number} is not between 1 and {MAX_PORT}')
            return None
        numbers.append(int(number))
    if numbers[-1] < numbers[0]:
        place.error(f'"{whole}": the range "{text}" ends before it begins')
        return None
    return numbers[0], numbers[-1] - numbers[0] + 1


def _check_protocol(text: str, place: Place) -> str | None:
    protocol = text.lower()
    if protocol in PROTOCOLS:
        return protocol
    place.error(f'protocol "{text}" cannot be published; possible are tcp and udp')
    return None


def _check_address(text: str, place: Place) -> bool:
    if not text or find_family(text):
        return True
    place.error(f'"{text}" is no IP address of the host')
    return False


def find_family(address: str) -> int:
    """Return 4 or 6, or 0 if ``address`` is no IP address."""
    import _socket  # the module "socket" builds enumerations, at ten times the cost

    for family, version in ((_socket.AF_INET, 4), (_socket.AF_INET6, 6)):
        try:
            _socket.inet_pton(family, address)
        except (OSError, ValueError):
            continue
        return version
    return 0


def _take_table(table: dict[str, object], place: Place) -> Port | None:
    good = report_unknown_keys(table, KEYS, place)
    host = container = None
    for name in ("host", "container"):
        if name not in table:
            place.error(f"{name} is missing")
    if "host" in table:
        host = take_integer(table["host"], place.at("host"), 1, MAX_PORT)
    if "container" in table:
        container = take_integer(table["container"], place.at("container"), 1, MAX_PORT)
    length = take_integer(table.get("length", 1), place.at("length"), 1, MAX_PORT)
    address = ""
    if "address" in table:
        taken = take_line(table["address"], place.at("address"))
        good = good and taken is not None and _check_address(taken, place.at("address"))
        address = taken or ""
    text = take_line(table.get("protocol", "tcp"), place.at("protocol"))
    protocol = None if text is None else _check_protocol(text, place.at("protocol"))
    if host is None or container is None or length is None or protocol is None or not good:
        return None
    if max(host, container) + length - 1 > MAX_PORT:
        place.at("length").error(f"the range goes beyond port {MAX_PORT}")
        return None
    return Port(host, container, length, address, protocol)


def report_unknown_keys(table: dict[str, object], keys: tuple[str, ...], place: Place) -> bool:
    """Report keys of an inline table that are none; return True if there are none."""
    unknown = [key for key in table if key not in keys]
    for key in unknown:
        place.at(key).error(f"unknown key; possible are {', '.join(keys)}", place.suggest(key, keys))
    return not unknown


def find_conflicts(entries: Sequence[tuple[Port, Place]]) -> None:
    """Report each port of the host that is published twice: same protocol, and addresses that overlap."""
    ordered = sorted(entries, key=lambda entry: (entry[0].protocol, entry[0].host))
    for index, (port, place) in enumerate(ordered):
        for other, other_place in ordered[index + 1 :]:
            if other.protocol != port.protocol or other.host >= port.host + port.length:
                break
            if _overlap(port.address, other.address):
                later = max((place, other_place), key=lambda p: entries_order(entries, p))
                later.error(f"port {other.host}/{other.protocol} of the host is published twice")
                break


def entries_order(entries: Sequence[tuple[Port, Place]], place: Place) -> int:
    """Return where in ``entries`` the one at ``place`` stands."""
    return next(index for index, entry in enumerate(entries) if entry[1] is place)


def _overlap(one: str, other: str) -> bool:
    """Tell whether binding both addresses to one port conflicts; a wildcard covers its family, "" both."""
    if one == other or not one or not other:
        return True
    families = find_family(one), find_family(other)
    return families[0] == families[1] and any(wild in (one, other) for wild in ("0.0.0.0", "::"))  # noqa: S104
