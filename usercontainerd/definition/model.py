"""What a definition means: frozen data, no behaviour beyond what derives from one value.

Every reader (TOML today; Quadlet, Kubernetes YAML later) ends in a ``Definition``; the unit, the bundle and the
inspect output are made from it alone.
"""

from __future__ import annotations

from enum import StrEnum

from usercontainerd.base.records import dataclass, field
from usercontainerd.definition.pull_policy import PullPolicy


class Network(StrEnum):
    """How the container reaches the network."""

    PASTA = "pasta"
    NONE = "none"
    HOST = "host"


class MountType(StrEnum):
    """What stands behind a mount."""

    BIND = "bind"
    VOLUME = "volume"
    TMPFS = "tmpfs"


class UserNamespace(StrEnum):
    """``default``: root is the user, further IDs are the subordinate ones; ``single``: the user's own ID only."""

    DEFAULT = "default"
    SINGLE = "single"


class Notify(StrEnum):
    """Who says READY: ``started``, the launcher once the command runs; ``container``, the program by sd_notify(3)."""

    STARTED = "started"
    CONTAINER = "container"


class Output(StrEnum):
    """What standard output and error are: ``journal``, its socket; ``pipe``, which cat(1) copies to it.

    ``auto`` is a pipe for what opens its output by name, which a socket does not allow, or is not root inside.
    """

    AUTO = "auto"
    JOURNAL = "journal"
    PIPE = "pipe"


class WritableLayer(StrEnum):
    """What becomes of the container's own changes: ``fresh`` at every start, or ``keep`` until it is removed."""

    FRESH = "fresh"
    KEEP = "keep"


class Restart(StrEnum):
    """systemd.service(5) ``Restart=``, of which docker's policies are spellings."""

    NO = "no"
    ALWAYS = "always"
    ON_SUCCESS = "on-success"
    ON_FAILURE = "on-failure"
    ON_ABNORMAL = "on-abnormal"
    ON_ABORT = "on-abort"
    ON_WATCHDOG = "on-watchdog"


@dataclass(frozen=True)
class Port:
    """``length`` consecutive ports from ``host`` on the host are published as those from ``container``."""

    host: int
    container: int
    length: int = 1
    address: str = ""
    protocol: str = "tcp"


@dataclass(frozen=True)
class Mount:
    """``source`` is an absolute host path (bind), a volume's name (volume, "" is anonymous) or empty (tmpfs)."""

    type: MountType
    target: str
    source: str = ""
    read_only: bool = False
    create: bool = False
    size: int | None = None
    mode: int | None = None
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Resources:
    """Limits, all of the unit's own cgroup. Sizes in bytes, ``cpus`` in processors, weights 1 to 10000.

    ``swap`` and ``pids`` of -1 mean no limit, None what systemd or docker have by default.
    """

    memory: int | None = None
    memory_high: int | None = None
    swap: int | None = None
    cpus: float | None = None
    cpu_weight: int | None = None
    pids: int | None = None
    io_weight: int | None = None


@dataclass(frozen=True)
class Security:
    """Deviations from the default isolation. Capabilities are upper case with ``CAP_``, or ``ALL``."""

    add_capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()
    read_only: bool = False
    no_new_privileges: bool = False
    seccomp: str = "default"  # "default", "unconfined" or an absolute path
    user_namespace: UserNamespace = UserNamespace.DEFAULT


class HealthAction(StrEnum):
    """What systemd does with a container that has become unhealthy."""

    NONE = "none"
    KILL = "kill"
    RESTART = "restart"
    STOP = "stop"


@dataclass(frozen=True)
class Health:
    """How the container's health is checked; None is what the image says, or the default. Times in seconds.

    ``command`` is docker's ``Test``: ``CMD`` and words, ``CMD-SHELL`` and a text for a shell, or ``NONE``. An
    ``interval`` of 0 has nothing checked but by hand.
    """

    command: tuple[str, ...] | None = None
    interval: float | None = None
    timeout: float | None = None
    retries: int | None = None
    start_period: float | None = None
    start_interval: float | None = None
    on_failure: HealthAction = HealthAction.NONE


@dataclass(frozen=True)
class Desktop:
    """What the desktop may know of the container: application IDs (``org.example.App``) and notifications."""

    allow: tuple[str, ...] = ()
    notify: bool = False


Directives = tuple[tuple[str, tuple[str, ...]], ...]
Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Definition:
    """One container. ``None`` or empty means what the image says, or the default of container-definition(5)."""

    name: str
    image: str
    sources: tuple[str, ...] = ()  # the file and its drop-ins, in the order read
    description: str | None = None
    pull: PullPolicy = PullPolicy.MISSING
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    environment: Pairs = ()
    environment_files: tuple[str, ...] = ()  # absolute; "-" before one that need not exist
    user: str | None = None
    group: str | None = None
    working_directory: str | None = None
    hostname: str | None = None
    ports: tuple[Port, ...] = ()
    mounts: tuple[Mount, ...] = ()
    network: Network = Network.PASTA
    resources: Resources = field(default_factory=Resources)
    security: Security = field(default_factory=Security)
    health: Health = field(default_factory=Health)
    desktop: Desktop = field(default_factory=Desktop)
    labels: Pairs = ()
    annotations: Pairs = ()
    init: bool = False
    terminal: bool = False
    interactive: bool = False
    remove: bool = False
    stop_signal: str | None = None  # "SIGTERM"; None: the image's
    stop_timeout: float = 10.0  # seconds, may be infinite
    restart: Restart = Restart.NO
    notify: Notify = Notify.STARTED
    output: Output = Output.AUTO
    writable_layer: WritableLayer = WritableLayer.FRESH
    unit: Directives = ()
    service: Directives = ()
    install: Directives = ()
