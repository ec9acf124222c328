"""Where things lie: the XDG directories and the files below them.

Imports ``sys`` only: the launcher and the generator load this on their fast paths. Only the doors read the
environment; they hand it to ``Paths.from_environment``.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

PROGRAM = "usercontainerd"


class Paths:
    """All directories of one user, absolute. ``data`` survives a reboot, ``runtime`` does not, ``cache`` may vanish."""

    __slots__ = ("cache", "config", "data", "runtime", "runtime_root", "system_config", "vendor")

    def __init__(self, *, config: str, data: str, cache: str, runtime_root: str) -> None:
        self.config = config
        self.data = data
        self.cache = cache
        self.runtime_root = runtime_root
        self.runtime = f"{runtime_root}/{PROGRAM}"
        self.system_config = f"/etc/{PROGRAM}"
        self.vendor = f"/usr/share/{PROGRAM}"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], uid: int) -> Paths:
        """Follow the XDG base directory specification; a relative value is ignored as it says."""
        home = environment.get("HOME") or "/"

        def base(variable: str, default: str) -> str:
            value = environment.get(variable, "")
            return value if value.startswith("/") else default

        return cls(
            config=f"{base('XDG_CONFIG_HOME', f'{home}/.config')}/{PROGRAM}",
            data=f"{base('XDG_DATA_HOME', f'{home}/.local/share')}/{PROGRAM}",
            cache=f"{base('XDG_CACHE_HOME', f'{home}/.cache')}/{PROGRAM}",
            runtime_root=base("XDG_RUNTIME_DIR", f"/run/user/{uid}"),
        )

    @property
    def configuration_directories(self) -> tuple[str, str, str]:
        """The user's, the administrator's and the packages' directory: first found wins."""
        return (self.config, self.system_config, self.vendor)

    @property
    def definition_directories(self) -> tuple[str, str, str]:
        """Where ``NAME.toml`` and ``NAME.toml.d/`` are looked for, in order."""
        user, admin, vendor = self.configuration_directories
        return (f"{user}/containers", f"{admin}/containers", f"{vendor}/containers")

    @property
    def created_definitions(self) -> str:
        """Where ``usercontainer create`` keeps the definitions of containers made at run time."""
        return f"{self.data}/created"

    @property
    def passing_definitions(self) -> str:
        """The same of containers that are removed when they have ended: none outlives a reboot."""
        return f"{self.runtime}/created"

    @property
    def runtime_units(self) -> str:
        """The user manager's directory for units made at run time (systemd.unit(5))."""
        return f"{self.runtime_root}/systemd/user"

    def bundle(self, name: str) -> str:
        """Directory of the prepared bundle of container ``name``; gone after a reboot, then prepared anew."""
        return f"{self.runtime}/containers/{name}"

    def container_data(self, name: str) -> str:
        """Directory of what container ``name`` keeps on disk: its writable layer."""
        return f"{self.data}/containers/{name}"

    @property
    def crun_root(self) -> str:
        """crun's state directory (``crun --root``)."""
        return f"{self.runtime}/crun"


def parent_of(path: str) -> str:
    """os.path.dirname(), for where ``os`` is not imported."""
    return path.rpartition("/")[0] or ("/" if path.startswith("/") else "")


def decode_path(data: bytes) -> str:
    """os.fsdecode(), for where ``os`` is not imported: paths may be of any bytes."""
    return data.decode(sys.getfilesystemencoding(), "surrogateescape")


def encode_path(path: str) -> bytes:
    """os.fsencode(), the other way."""
    return path.encode(sys.getfilesystemencoding(), "surrogateescape")


def decode_environment(raw: Mapping[bytes, bytes]) -> dict[str, str]:
    """The environment as ``os.environ`` has it, from that of ``posix``."""
    return {decode_path(name): decode_path(value) for name, value in raw.items()}
