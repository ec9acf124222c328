"""Where definitions lie: ``NAME.toml`` and ``NAME.toml.d/*.toml``, found by the rules of systemd.unit(5).

- The first directory that has ``NAME.toml`` wins; the others' are not read.
- Drop-ins are collected from ``NAME.toml.d`` of every directory. Of those with one file name the first directory's
  counts; they apply in the order of their file names.
- An instance ``web@blue`` uses ``web@blue.toml``, else the template ``web@.toml``; drop-ins are those of the instance,
  then those of the template.
- An empty file, or a symbolic link to /dev/null, masks what it stands for.
"""

from __future__ import annotations

import os
import stat

from usercontainerd.base.names import is_container_name, is_template_name, split_instance

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from usercontainerd.definition.diagnostic import Diagnostic

_SUFFIX = ".toml"
_DROP_IN_SUFFIX = ".toml.d"
_BAD_NAME = (
    "the file must be NAME.toml, and NAME letters, digits, '_', '.' and '-', with @INSTANCE for an instance"
)


class Found:
    """A definition's files. ``template`` names the template (``web@``) where the instance has no file of its own.

    A template itself is found too, under its own name (``web@``): it can be verified, not started.
    """

    __slots__ = ("drop_ins", "name", "path", "template")

    def __init__(
        self, name: str, path: str, drop_ins: Sequence[str] = (), template: str | None = None
    ) -> None:
        self.name = name
        self.path = path
        self.drop_ins = tuple(drop_ins)
        self.template = template

    @property
    def is_template(self) -> bool:
        """True for ``web@``, of which only instances can be started."""
        return self.name.endswith("@")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Found) and self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash(self._fields())

    def __repr__(self) -> str:
        return f"Found({self.name!r}, {self.path!r}, {self.drop_ins!r}, {self.template!r})"

    def _fields(self) -> tuple[str, str, tuple[str, ...], str | None]:
        return (self.name, self.path, self.drop_ins, self.template)


def find_definitions(
    directories: Iterable[str], problems: list[Diagnostic] | None = None
) -> tuple[Found, ...]:
    """Return all definitions of ``directories``, by name; masked ones are left out.

    A directory that does not exist has none. What cannot be read, or has an impossible name, is appended to
    ``problems`` and passed over.
    """
    problems = [] if problems is None else problems
    files: dict[str, str | None] = {}
    drop_ins: dict[str, list[str]] = {}
    for directory in directories:
        for entry in _scan(directory, problems):
            if entry.name.startswith("."):
                continue
            if entry.name.endswith(_SUFFIX):
                _note_file(entry, files, problems)
            elif entry.name.endswith(_DROP_IN_SUFFIX):
                drop_ins.setdefault(entry.name[: -len(_DROP_IN_SUFFIX)], []).append(entry.path)
    instances = [name for name in drop_ins if name not in files and files.get(_template_of(name) or "")]
    found = []
    for name in sorted((*files, *instances)):
        template = None if name in files else _template_of(name)
        path = files[name if template is None else template]
        if path is not None:
            places = [*drop_ins.get(name, ()), *drop_ins.get(_template_of(name) or "", ())]
            found.append(Found(name, path, _find_drop_ins(places, problems) if places else (), template))
    return tuple(found)


def find_definition(
    directories: Iterable[str], name: str, problems: list[Diagnostic] | None = None
) -> Found | None:
    """Return the definition of container ``name``, or None if there is none, or a masked one."""
    problems = [] if problems is None else problems
    if not (is_container_name(name) or is_template_name(name)):
        return None
    directories = tuple(directories)
    template = _template_of(name)
    path, used = _find_file(directories, name), None
    if path is None and template is not None:
        path, used = _find_file(directories, template), template
    if not path:
        return None
    names = (name,) if template is None else (name, template)
    places = [f"{directory}/{each}{_DROP_IN_SUFFIX}" for each in names for directory in directories]
    return Found(name, path, _find_drop_ins(places, problems), used)


def describe_file(path: str, problems: list[Diagnostic] | None = None) -> Found | None:
    """Return the definition in the file at ``path``, with the drop-ins beside it; None if its name is impossible."""
    problems = [] if problems is None else problems
    name = os.path.basename(path).removesuffix(_SUFFIX)
    if not path.endswith(_SUFFIX) or not (is_container_name(name) or is_template_name(name)):
        _report(problems, path, _BAD_NAME)
        return None
    directory = os.path.dirname(path) or "."
    places = [f"{directory}/{each}{_DROP_IN_SUFFIX}" for each in (name, _template_of(name)) if each]
    return Found(name, path, _find_drop_ins(places, problems))


def _template_of(name: str) -> str | None:
    prefix, instance = split_instance(name)
    return f"{prefix}@" if instance else None


def _note_file(entry: os.DirEntry[str], files: dict[str, str | None], problems: list[Diagnostic]) -> None:
    name = entry.name[: -len(_SUFFIX)]
    if name in files:
        return
    if not (is_container_name(name) or is_template_name(name)):
        _report(problems, entry.path, _BAD_NAME)
        return
    try:
        files[name] = None if _is_mask(entry.stat()) else entry.path
    except OSError:
        files[name] = entry.path  # the reader will say what is wrong with it


def _find_file(directories: Iterable[str], name: str) -> str | None:
    """Return the first path of that name, "" if it is masked, None if there is none."""
    for directory in directories:
        path = f"{directory}/{name}{_SUFFIX}"
        try:
            return "" if _is_mask(os.stat(path)) else path
        except (FileNotFoundError, NotADirectoryError):
            if os.path.islink(path):
                return path  # a dangling link: the reader will say so
        except (OSError, ValueError):
            return path
    return None


def _find_drop_ins(places: Iterable[str], problems: list[Diagnostic]) -> tuple[str, ...]:
    chosen: dict[str, str | None] = {}
    for place in places:
        for entry in _scan(place, problems):
            if entry.name in chosen or entry.name.startswith(".") or not entry.name.endswith(_SUFFIX):
                continue
            try:
                chosen[entry.name] = None if _is_mask(entry.stat()) else entry.path
            except OSError:
                chosen[entry.name] = entry.path
    return tuple(path for _, path in sorted(chosen.items()) if path is not None)


def _is_mask(status: os.stat_result) -> bool:
    """systemd's ``null_or_empty``: an empty file, or any device such as /dev/null."""
    mode = status.st_mode
    return (stat.S_ISREG(mode) and status.st_size == 0) or stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


def _scan(directory: str, problems: list[Diagnostic]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        _report(problems, directory, f"cannot be read: {error.strerror}")
        return []


def _report(problems: list[Diagnostic], path: str, message: str) -> None:
    # Imported here: lists of containers search, and need not wait for dataclasses.
    from usercontainerd.definition.diagnostic import Diagnostic, Severity

    problems.append(Diagnostic(path, 0, "", Severity.ERROR, message))
