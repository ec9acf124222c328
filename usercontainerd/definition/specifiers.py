"""``%`` specifiers: a subset of systemd.unit(5)'s, with the container's name in the place of the unit's.

In our own values ``expand`` replaces them. In the pass-through tables they are systemd's, save for ``%i`` and ``%I``
of an instance: systemd sees ``web@blue`` behind the first ``@`` of ``container@web@blue.service``, the user means
``blue``; there ``expand_instance`` replaces these two and leaves the others to systemd.
"""

from __future__ import annotations

from usercontainerd.base.names import split_instance

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Owner:
    """The user whose container it is: what ``~``, ``%h``, ``%t``, ``%u`` and ``%U`` stand for. Paths are absolute."""

    __slots__ = ("home", "runtime_root", "uid", "user_name")

    def __init__(self, *, home: str, runtime_root: str, user_name: str, uid: int) -> None:
        self.home = home
        self.runtime_root = runtime_root
        self.user_name = user_name
        self.uid = uid


def build_specifiers(name: str, owner: Owner) -> dict[str, str]:
    """Return what each letter stands for in the definition of container ``name``; no instance, no ``i`` and ``I``."""
    prefix, instance = split_instance(name)
    own = {} if instance is None else {"i": instance, "I": instance.replace("-", "/")}
    return own | {
        "j": prefix.rpartition("-")[2],
        "n": f"container@{name}.service",
        "N": name,
        "p": prefix,
        "h": owner.home,
        "t": owner.runtime_root,
        "u": owner.user_name,
        "U": str(owner.uid),
    }


def expand(text: str, specifiers: dict[str, str], unknown: Callable[[str], str], percent: str = "%") -> str:
    """Replace specifiers, ``%%`` by ``percent``, and what is none by what ``unknown`` says for it."""
    first, *parts = text.split("%")
    expanded = [first]
    index = 0
    while index < len(parts):
        part = parts[index]
        if part == "" and index + 1 < len(parts):  # "%%": what follows the second one is plain text
            expanded.append(percent + parts[index + 1])
            index += 2
            continue
        letter = part[:1]
        value = specifiers.get(letter)
        expanded.append((unknown(f"%{letter}") if value is None else value) + part[1:])
        index += 1
    return "".join(expanded)


def expand_instance(text: str, name: str) -> str:
    """Replace ``%i`` and ``%I`` of an instance of a template; leave everything else, ``%%`` too, to systemd."""
    instance = split_instance(name)[1]
    if instance is None or "%" not in text:
        return text
    values = {"i": instance, "I": instance.replace("-", "/")}
    return expand(text, values, lambda specifier: specifier, percent="%%")


def escape(text: str) -> str:
    """Return ``text`` such that ``expand`` gives it back."""
    return text.replace("%", "%%")
