"""Names of containers and of the units that run them.

Imports nothing: the launcher and the generator load this on their fast paths.
"""

from __future__ import annotations

from usercontainerd.base.errors import InvalidArgument

MAX_NAME_LENGTH = 200  # systemd.unit(5) allows 255 bytes for container@NAME.service
_PREFIX = "container@"
_SUFFIX = ".service"
_HEALTH_PREFIX = "container-health@"
_FIRST = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_FURTHER = _FIRST + "_.-"
_HINT = "letters, digits, '_', '.' and '-', the first a letter or digit; an instance is NAME@INSTANCE"


def is_container_name(name: str) -> bool:
    """Tell whether ``name`` can be a container's: docker's rule, with systemd's ``@`` before an instance."""
    prefix, at, instance = name.partition("@")
    return (
        is_plain_name(prefix) and len(name) <= MAX_NAME_LENGTH and (not at or _has_only(instance, _FURTHER))
    )


def is_template_name(name: str) -> bool:
    """Tell whether ``name`` is a template's: ``web@``."""
    return name.endswith("@") and is_plain_name(name[:-1]) and len(name) <= MAX_NAME_LENGTH


def is_plain_name(name: str) -> bool:
    """Tell whether ``name`` follows docker's rule for names of containers and volumes."""
    return name[:1] in _FIRST and _has_only(name, _FURTHER)


def _has_only(text: str, allowed: str) -> bool:
    # Stripping all allowed characters from both ends leaves something as soon as one other is among them.
    return text != "" and text.strip(allowed) == ""


def check_container_name(name: str) -> str:
    """Return ``name``; raise InvalidArgument if it cannot be a container's name."""
    if is_container_name(name):
        return name
    if len(name) > MAX_NAME_LENGTH:
        raise InvalidArgument(
            f"container name of {len(name)} characters", hint=f"at most {MAX_NAME_LENGTH} are possible"
        )
    if is_template_name(name):
        raise InvalidArgument(f'"{name}" is a template', hint=f'name an instance of it, such as "{name}1"')
    raise InvalidArgument(f'"{name}" cannot be a container\'s name', hint=_HINT)


def split_instance(name: str) -> tuple[str, str | None]:
    """Return prefix and instance: ``web@blue`` is ``("web", "blue")``, ``web`` is ``("web", None)``."""
    prefix, at, instance = name.partition("@")
    return prefix, instance if at else None


def unit_name(name: str) -> str:
    """Return the unit of container ``name``: ``container@NAME.service``. Raises InvalidArgument."""
    return f"{_PREFIX}{check_container_name(name)}{_SUFFIX}"


def health_timer(name: str) -> str:
    """Return the unit that has the health of container ``name`` checked again and again. Raises InvalidArgument."""
    return f"{_HEALTH_PREFIX}{check_container_name(name)}.timer"


def health_service(name: str) -> str:
    """Return the unit that checks the health of container ``name`` once. Raises InvalidArgument."""
    return f"{_HEALTH_PREFIX}{check_container_name(name)}{_SUFFIX}"


def runtime_id(name: str) -> str:
    """Return what crun calls container ``name``: newer ones refuse ``@``, and no name has a ``+``."""
    return name.replace("@", "+")


def container_name(unit: str) -> str | None:
    """Return the container that ``unit`` runs, or None if it is not a container's unit."""
    if not (unit.startswith(_PREFIX) and unit.endswith(_SUFFIX)):
        return None
    name = unit[len(_PREFIX) : -len(_SUFFIX)]
    return name if is_container_name(name) else None
