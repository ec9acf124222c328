"""Whether a container starts with the user's session, and having it so or not.

systemd neither enables nor disables a unit that a generator has made: ``systemctl --user enable`` refuses,
``is-enabled`` says ``generated``. So the choice is a drop-in of the definition. The generator makes the links of it,
``systemctl --user cat`` shows it, it holds for definitions of the administrator and of packages, and without a
definition it means nothing. A link that ``systemctl --user enable`` could make (for an instance of a template, or
before the generator knew the definition) counts, too, and disabling takes it away.
"""

from __future__ import annotations

import os

from usercontainerd.base.errors import InUse, InvalidArgument, InvalidDefinition, SystemdError
from usercontainerd.base.names import container_name, unit_name
from usercontainerd.systemd.renewal import find_generator, reload_definitions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from usercontainerd.base.paths import Paths
    from usercontainerd.engine.context import Context
    from usercontainerd.systemd.manager import Manager

DROP_IN = "99-autostart.toml"
DEFAULT_TARGET = "default.target"
_ADMIN = "/etc/systemd/user"
_KEYS = ("WantedBy", "RequiredBy", "UpheldBy")


def is_autostarted(paths: Paths, name: str) -> bool:
    """Tell whether a target wants the container's unit, by the generator's links or by ``systemctl --user enable``."""
    return not find_mask(paths, name) and bool(find_wishes(paths, name))


def list_autostarted(paths: Paths) -> set[str]:
    """Return all containers of which ``is_autostarted`` is true; each directory is read once."""
    names: set[str | None] = set()
    for place in _list_places(paths):
        for directory in _list_wants(place):
            names.update(map(container_name, _list(f"{place}/{directory}")))
    return {name for name in names if name is not None and not find_mask(paths, name)}


def find_wishes(paths: Paths, name: str) -> list[str]:
    """Return the links by which other units want this one at every start of the user's systemd."""
    return _find_links(_list_places(paths), unit_name(name))


def _list_places(paths: Paths) -> tuple[str, ...]:
    if find_generator() is None:
        generated: tuple[str, ...] = (paths.runtime_units,)
    else:
        generated = (
            f"{paths.runtime_root}/systemd/generator",
            f"{paths.runtime_root}/systemd/generator.late",
        )
    return (*generated, _user_units(paths), _ADMIN)


def find_mask(paths: Paths, name: str) -> str:
    """Return the link that masks the container's unit (``systemctl --user mask``), "" if there is none."""
    for place in (_user_units(paths), _ADMIN, paths.runtime_units):
        path = f"{place}/{unit_name(name)}"
        try:
            if os.readlink(path) == os.devnull:
                return path
        except OSError:
            continue
    return ""


def _find_unmask(paths: Paths, mask: str) -> str:
    """The command that takes a mask away: it depends on whose it is."""
    if mask.startswith(f"{_ADMIN}/"):
        return "sudo systemctl --global unmask"
    return (
        "systemctl --user --runtime unmask"
        if mask.startswith(paths.runtime_units)
        else "systemctl --user unmask"
    )


def enable_autostart(context: Context, manager: Manager, name: str, *, target: str = "") -> None:
    """Have the container start whenever ``target`` does.

    "" is what its definition says, or default.target: with the first login of the user, or at boot if the user
    lingers. Raises ``NoSuchContainer``, ``InvalidDefinition``, ``InvalidArgument``, ``InUse``, ``StoreError``.
    """
    from usercontainerd.base.unitfile import is_unit_name

    paths = context.paths
    if target and not is_unit_name(target):
        raise InvalidArgument("not the name of a unit", where=target, hint=f"such as {DEFAULT_TARGET}")
    if mask := find_mask(paths, name):
        raise InUse("the unit is masked", where=mask, hint=f"{_find_unmask(paths, mask)} {unit_name(name)}")
    wanted = read_own_wishes(context, name)
    linked = bool(_find_links((_user_units(paths), _ADMIN), unit_name(name)))
    enough = target in wanted if target else bool(wanted or linked)
    _write_choice(paths, name, "" if enough else render_choice(name, target or DEFAULT_TARGET))
    reload_definitions(manager)
    if not find_wishes(paths, name):
        raise SystemdError(
            "the generator has made no link for it",
            where=unit_name(name),
            hint="journalctl --user -e has what the generator says",
        )


def disable_autostart(context: Context, manager: Manager, name: str) -> None:
    """Have the container start by hand only, whatever its definition says.

    Raises ``NoSuchContainer``, ``InvalidDefinition``, ``InUse``, ``StoreError``.
    """
    paths, unit = context.paths, unit_name(name)
    if admins := _find_links((_ADMIN,), unit):
        raise InUse(
            "the administrator has enabled it for all users",
            where=admins[0],
            hint=f"systemctl --user mask {unit} hides it, from you as well",
        )
    wanted = read_own_wishes(context, name)
    _remove_links(paths, name)
    _write_choice(paths, name, render_choice(name, "") if wanted else "")
    reload_definitions(manager)
    if left := find_wishes(paths, name):
        raise InUse("something else wants it", where=left[0], hint="systemctl --user list-dependencies")


def forget_choice(paths: Paths, name: str) -> None:
    """The container goes for good: nothing of ``enable`` or ``disable`` stays."""
    _remove_links(paths, name)
    _write_choice(paths, name, "")


def choice_path(paths: Paths, name: str) -> str:
    """Where the drop-in lies, among the user's definitions."""
    return f"{paths.definition_directories[0]}/{name}.toml.d/{DROP_IN}"


def render_choice(name: str, target: str) -> str:
    """The drop-in that has ``name`` start with ``target``, or with nothing if that is "". Pure."""
    if target:
        quoted = target.replace("\\", "\\\\")  # systemd-escape(1)
        return (
            f"# `usercontainer enable {name}` has written this, `disable` removes it.\n"
            f'[install]\nwanted_by = ["{quoted}"]\n'
        )
    return (
        f"# `usercontainer disable {name}` has written this, `enable` removes it: an empty list takes back what the\n"
        "# definition says.\n[install]\nwanted_by = []\nrequired_by = []\nupheld_by = []\n"
    )


def read_own_wishes(context: Context, name: str) -> tuple[str, ...]:
    """Return the units that the definition itself wants to start it.

    Raises ``NoSuchContainer``, ``InvalidDefinition``.
    """
    from usercontainerd.base.names import check_container_name
    from usercontainerd.definition.reader import load_definition
    from usercontainerd.definition.search import Found, find_definition
    from usercontainerd.engine.definitions import build_owner, definition_directories, explain_missing

    check_container_name(name)
    directories = definition_directories(context)
    found = find_definition(directories, name)
    if found is None:
        raise explain_missing(name, directories[0])
    others = [path for path in found.drop_ins if path != choice_path(context.paths, name)]
    definition, diagnostics = load_definition(
        Found(name, found.path, others, found.template), build_owner(context)
    )
    if definition is None:
        raise InvalidDefinition(
            "; ".join(str(each) for each in diagnostics if each.is_error),
            hint="`usercontainer verify` shows all problems",
        )
    return tuple(
        unit
        for key, values in definition.install
        if key in _KEYS
        for value in values
        for unit in value.split()
    )


def _write_choice(paths: Paths, name: str, text: str) -> None:
    """Have the drop-in be ``text``, or be gone if that is empty."""
    from usercontainerd.kernel.atomicfile import explain_write_error, write_atomic

    path = choice_path(paths, name)
    directory = os.path.dirname(path)
    try:
        if text:
            os.makedirs(directory, exist_ok=True)
            write_atomic(path, text.encode(), mode=0o644)
            return
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise explain_write_error(error, path) from error
    try:
        os.rmdir(directory)
    except OSError:
        pass  # it has drop-ins of the user's


def _remove_links(paths: Paths, name: str) -> None:
    """What ``systemctl --user disable`` removes."""
    from usercontainerd.kernel.atomicfile import explain_write_error

    for path in _find_links((_user_units(paths),), unit_name(name)):
        try:
            os.unlink(path)
            os.rmdir(os.path.dirname(path))
        except FileNotFoundError:
            continue
        except OSError as error:
            if os.path.lexists(path):
                raise explain_write_error(error, path) from error


def _user_units(paths: Paths) -> str:
    return f"{os.path.dirname(paths.config)}/systemd/user"


def _find_links(places: Iterable[str], unit: str) -> list[str]:
    links = [f"{place}/{directory}/{unit}" for place in places for directory in _list_wants(place)]
    return [link for link in links if os.path.lexists(link)]


def _list_wants(place: str) -> list[str]:
    return [name for name in _list(place) if name.endswith((".wants", ".requires", ".upholds"))]


def _list(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []
