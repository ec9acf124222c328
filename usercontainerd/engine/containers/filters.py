"""docker's filters of containers."""

from __future__ import annotations

import re

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.engine.containers.listing import State
from usercontainerd.runtime.health import STATES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from usercontainerd.engine.containers.listing import Container

    Test = Callable[[Container], bool]

KINDS = ("ancestor", "exited", "health", "id", "label", "name", "status")


def build_test(kind: str, values: list[str]) -> Test:
    """Return the test that one kind of filter means. Raises ``InvalidArgument``."""
    builders = {
        "ancestor": _build_ancestor,
        "exited": _build_exited,
        "health": _build_health,
        "id": _build_id,
        "label": _build_label,
        "name": _build_name,
        "status": _build_status,
    }
    if kind not in builders:
        raise InvalidArgument(f'there is no filter "{kind}"', hint=f"possible are {', '.join(KINDS)}")
    return builders[kind](values)


def _build_name(values: list[str]) -> Test:
    try:
        patterns = [re.compile(value) for value in values]
    except re.error as error:
        raise InvalidArgument(f"--filter name: not a regular expression: {error}") from error
    return lambda container: any(pattern.search(container.name) for pattern in patterns)


def _build_id(values: list[str]) -> Test:
    return lambda container: any(container.id.startswith(value) for value in values)


def _build_status(values: list[str]) -> Test:
    for value in values:
        if value not in State.ALL:
            raise InvalidArgument(
                f'there is no status "{value}"', hint=f"possible are {', '.join(State.ALL)}"
            )
    return lambda container: container.state in values


def _build_health(values: list[str]) -> Test:
    for value in values:
        if value not in (*STATES, "none"):
            raise InvalidArgument(
                f'there is no health "{value}"', hint=f"possible are {', '.join(STATES)} and none"
            )
    return lambda container: (container.health or "none") in values


def _build_exited(values: list[str]) -> Test:
    if not all(value.isdecimal() for value in values):
        raise InvalidArgument("--filter exited: an exit status is a number")
    return lambda container: (
        container.exit is not None and not container.is_alive and str(container.exit.status) in values
    )


def _build_label(values: list[str]) -> Test:
    wanted = [value.partition("=") for value in values]

    def test(container: Container) -> bool:
        labels = dict(container.summary.labels)
        return all(
            name in labels and (not equals or labels[name] == content) for name, equals, content in wanted
        )

    return test


def _build_ancestor(values: list[str]) -> Test:
    def test(container: Container) -> bool:
        summary = container.summary
        digits = summary.image_id.removeprefix("sha256:")
        return any(
            value in (summary.image, summary.image.partition("@")[0].rpartition(":")[0])
            or (len(value) >= 4 and digits.startswith(value.removeprefix("sha256:")))
            for value in values
        )

    return test
