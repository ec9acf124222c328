"""Whether a container starts with the user's session: some target of systemd's wants it."""

from __future__ import annotations

import os

from usercontainerd.base.names import unit_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.base.paths import Paths


def is_autostarted(paths: Paths, name: str) -> bool:
    """Tell whether a target wants the container's unit, by the generator's links or by ``systemctl --user enable``."""
    unit = unit_name(name)
    places = (
        f"{paths.runtime_root}/systemd/generator",
        f"{paths.runtime_root}/systemd/generator.late",
        f"{os.path.dirname(paths.config)}/systemd/user",
        "/etc/systemd/user",
    )
    return any(
        os.path.lexists(f"{place}/{directory}/{unit}") for place in places for directory in _list_wants(place)
    )


def _list_wants(place: str) -> list[str]:
    try:
        return [name for name in os.listdir(place) if name.endswith((".wants", ".requires", ".upholds"))]
    except OSError:
        return []
