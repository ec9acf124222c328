"""From a ``Definition`` back to TOML, such that parsing gives the same definition: for containers made at run time."""

from __future__ import annotations

from math import inf

import toml

from usercontainerd.base.sizes import render_size
from usercontainerd.definition.model import Definition, MountType
from usercontainerd.definition.specifiers import escape
from usercontainerd.definition.values import INFINITY, UNLIMITED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from usercontainerd.definition.model import Desktop, Directives, Health, Mount, Port, Resources, Security

_KEYS = (
    "description image pull command entrypoint environment_files user group working_directory hostname network "
    "init terminal interactive remove stop_signal stop_timeout restart notify output writable_layer"
)
_SECURITY_KEYS = "add_capabilities drop_capabilities read_only no_new_privileges seccomp user_namespace"
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def render_definition(definition: Definition) -> str:
    """Return the TOML text that means ``definition``; what has its default is left out. ``sources`` are not written."""
    default = Definition(definition.name, definition.image)
    table: dict[str, Any] = {}
    for key in _KEYS.split():
        value = getattr(definition, key)
        if key == "image" or value != getattr(default, key):
            table[key] = _escape(value)
    if definition.ports:
        table["ports"] = [render_port(port) for port in definition.ports]
    if definition.mounts:
        table["mounts"] = [_build_mount(mount) for mount in definition.mounts]
    for key in ("environment", "labels", "annotations"):
        pairs = getattr(definition, key)
        if pairs:
            table[key] = {name: escape(value) for name, value in pairs}
    for key, part in (
        ("resources", _build_resources(definition.resources)),
        ("security", _build_security(definition.security)),
        ("health", _build_health(definition.health)),
        ("desktop", _build_desktop(definition.desktop)),
        ("unit", _build_directives(definition.unit)),
        ("service", _build_directives(definition.service)),
        ("install", _build_directives(definition.install)),
    ):
        if part:
            table[key] = part
    return toml.dumps(table, encoder=_Encoder())


class _Encoder(toml.TomlEncoder):  # type: ignore[type-arg]
    """The package's walk over tables with quoting by TOML's grammar: its own guesses at escapes that repr() made."""

    def __init__(self) -> None:
        super().__init__()
        self.dump_funcs[str] = quote
        self.dump_funcs[list] = self.dump_list
        self.dump_funcs[dict] = self.dump_inline_table

    def dump_list(self, v: Any) -> str:
        items = [str(self.dump_value(each)) for each in v]
        if any(isinstance(each, dict) for each in v):
            return "[\n" + "".join(f"    {item},\n" for item in items) + "]"
        return f"[{', '.join(items)}]"

    def dump_inline_table(self, section: Any) -> str:
        return f"{{ {', '.join(f'{_quote_key(key)} = {self.dump_value(value)}' for key, value in section.items())} }}"

    def dump_sections(self, o: Any, sup: str) -> tuple[str, dict[str, Any]]:
        lines = []
        tables = {}
        for key, value in o.items():
            if isinstance(value, dict):
                tables[_quote_key(key)] = value
            else:
                lines.append(f"{_quote_key(key)} = {self.dump_value(value)}\n")
        return "".join(lines), tables


def quote(text: str) -> str:
    """Return ``text`` as a basic string."""
    return (
        '"'
        + "".join(_ESCAPES.get(c) or (c if c >= " " and c != "\x7f" else f"\\u{ord(c):04x}") for c in text)
        + '"'
    )


def _quote_key(key: str) -> str:
    bare = key.replace("_", "").replace("-", "")
    return key if bare.isascii() and bare.isalnum() else quote(key)


def _escape(value: Any) -> Any:
    """Prepare a value for the writer: specifiers doubled, enumerations and tuples made plain."""
    if isinstance(value, str):
        return escape(str(value))
    if isinstance(value, tuple):
        return [escape(each) for each in value]
    if isinstance(value, float):
        return INFINITY if value == inf else int(value) if value.is_integer() else value
    return value


def render_port(port: Port) -> str:
    """Return the text of ``ports`` that means ``port``: ``127.0.0.1:8000-8009:9000-9009/udp``."""
    address = f"[{port.address}]" if ":" in port.address else port.address
    parts = [address] if address else []
    for first in (port.host, port.container):
        parts.append(f"{first}-{first + port.length - 1}" if port.length > 1 else str(first))
    return ":".join(parts) + ("" if port.protocol == "tcp" else f"/{port.protocol}")


def _build_mount(mount: Mount) -> dict[str, Any]:
    table: dict[str, Any] = {"type": str(mount.type)}
    if mount.source:
        table["source"] = escape(mount.source)
    table["target"] = escape(mount.target)
    for key in ("read_only", "create"):
        if getattr(mount, key):
            table[key] = True
    if mount.type is MountType.TMPFS and mount.size is not None:
        table["size"] = render_size(mount.size)
    if mount.mode is not None:
        table["mode"] = f"{mount.mode:04o}"
    if mount.options:
        table["options"] = list(mount.options)
    return table


def _build_resources(resources: Resources) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key in ("memory", "memory_high", "swap"):
        size = getattr(resources, key)
        if size is not None:
            table[key] = INFINITY if size == UNLIMITED else render_size(size)
    for key in ("cpus", "cpu_weight", "pids", "io_weight"):
        value = getattr(resources, key)
        if value is not None:
            table[key] = INFINITY if value == UNLIMITED else value
    return table


def _build_security(security: Security) -> dict[str, Any]:
    default = type(security)()
    keys = _SECURITY_KEYS.split()
    return {key: _escape(value) for key in keys if (value := getattr(security, key)) != getattr(default, key)}


def _build_health(health: Health) -> dict[str, Any]:
    table: dict[str, Any] = {}
    if health.command is not None:
        kind, *words = health.command
        table["command"] = _escape(words[0]) if kind == "CMD-SHELL" else [escape(word) for word in words]
    for key in ("interval", "timeout", "retries", "start_period", "start_interval"):
        value = getattr(health, key)
        if value is not None:
            table[key] = _escape(value)
    if health.on_failure != "none":
        table["on_failure"] = str(health.on_failure)
    return table


def _build_desktop(desktop: Desktop) -> dict[str, Any]:
    table: dict[str, Any] = {}
    if desktop.allow:
        table["allow"] = list(desktop.allow)
    if desktop.notify:
        table["notify"] = True
    return table


def _build_directives(directives: Directives) -> dict[str, Any]:
    """One value as it is, several as a list; specifiers in them are systemd's."""
    return {name: values[0] if len(values) == 1 else list(values) for name, values in directives}
