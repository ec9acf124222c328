"""The generator: ``usercontainerd-generator NORMAL EARLY LATE``, see systemd.generator(7).

``systemd --user`` runs it at every login and every daemon-reload, and waits for it. So when nothing has changed since
the last time, what it wrote then is written again, and neither TOML nor the definition's model are even
imported.
"""

from __future__ import annotations

import os
import sys

from usercontainerd import __version__
from usercontainerd.base.paths import Paths
from usercontainerd.base.programs import Programs, find_programs
from usercontainerd.generator.cache import Cached, read_cache
from usercontainerd.generator.inputs import find_instances, stamp_code, stamp_definitions
from usercontainerd.generator.output import drop_interim_units, write_units

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from usercontainerd.generator.entry import Entry

# Of the environment, what definitions may refer to and where they are looked for.
_VARIABLES = ("HOME", "USER", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR")
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def main(arguments: list[str], environment: Mapping[str, str]) -> int:
    """Write all units below the first of ``arguments``. Never fails for what is wrong with a definition."""
    if not 1 <= len(arguments) <= 3:
        sys.stderr.write(
            "usage: usercontainerd-generator NORMAL-DIRECTORY [EARLY-DIRECTORY LATE-DIRECTORY]\n"
        )
        return 2
    if environment.get("SYSTEMD_SCOPE") == "system":
        return 0  # the units are those of users
    paths = Paths.from_environment(environment, os.getuid())
    entries = generate(environment, os.getuid(), find_programs())
    failures = write_units(arguments[0], entries)
    if arguments[0].startswith(f"{paths.runtime_root}/systemd/"):  # else it is not systemd that asks
        created = (paths.created_definitions, paths.passing_definitions)
        drop_interim_units(paths.runtime_units, arguments[0], created)
    lines = [line for entry in entries for line in entry.log] + failures
    if lines:
        sys.stderr.write("".join(f"usercontainerd-generator: {line}\n" for line in lines))
    return 1 if failures else 0


def generate(environment: Mapping[str, str], uid: int, programs: Programs) -> tuple[Entry, ...]:
    """Return an entry for each container, from the cache if that is current."""
    paths = Paths.from_environment(environment, uid)
    inherited = "\n".join(f"{name}={environment.get(name)}" for name in _VARIABLES)
    basis = f"{__version__}\n{uid}\n{programs.directory}\n{inherited}\n{stamp_code(_PACKAGE)}"
    places = (*paths.definition_directories, paths.created_definitions, paths.passing_definitions)
    stamps, templates = stamp_definitions(places)
    unit_directories = (f"{os.path.dirname(paths.config)}/systemd/user", "/etc/systemd/user")
    instances = find_instances(paths.runtime, unit_directories) if templates else ()
    state = "\n".join((*instances, stamps)) if stamps else ""
    file = f"{paths.cache}/units"
    last = read_cache(file)
    if last is None or last.basis != basis:
        last = Cached(basis, "", ())
    if state and last.state == state:
        return last.entries

    from usercontainerd.engine.containers.listing import forget_ended_runs
    from usercontainerd.engine.context import build_context
    from usercontainerd.generator.conversion import convert_all

    context = build_context(dict(environment), programs, uid, os.getgid())
    entries = convert_all(context, instances, {entry.name: entry for entry in last.entries})
    _keep(file, Cached(basis, state, entries))
    forget_ended_runs(paths)
    return tuple(entries)


def _keep(file: str, cached: Cached) -> None:
    from usercontainerd.base.errors import UsercontainerError
    from usercontainerd.generator.cache import render_cache
    from usercontainerd.kernel.atomicfile import write_atomic

    data = render_cache(cached)
    if data is None:
        return
    try:
        os.makedirs(os.path.dirname(file), mode=0o700, exist_ok=True)
        write_atomic(file, data, sync=False)
    except (OSError, UsercontainerError):
        pass  # a home directory that cannot be written to: slower, no more
