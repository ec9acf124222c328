"""Every key of a definition, in one table: the parser, the suggestions and the manual's test derive from it.

A key's ``kind`` names its converter in ``usercontainerd.definition.layers``. ``default`` is as the manual prints it,
``like`` what docker and podman, or systemd, call it. Keys of a table are written with a dot here:
``resources.memory`` is ``memory`` in ``[resources]``.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Key:
    """One key."""

    __slots__ = ("default", "doc", "kind", "like")

    def __init__(self, kind: str, default: str, doc: str, like: str) -> None:
        self.kind = kind
        self.default = default
        self.doc = doc
        self.like = like


KEYS: dict[str, Key] = {
    "description": Key("line", "the image", "One line about the container", "Description="),
    "image": Key("image", "", "The image to run", "podman run IMAGE"),
    "pull": Key("pull", '"missing"', "When the image is pulled at start", "--pull"),
    "command": Key(
        "argv", "the image's", "The command, or the arguments of the entry point", "podman run IMAGE COMMAND"
    ),
    "entrypoint": Key("argv", "the image's", "The program that the command is given to", "--entrypoint"),
    "environment": Key("environment", "{}", "Environment variables", "--env"),
    "environment_files": Key("optional_paths", "[]", "Files of environment variables", "--env-file"),
    "user": Key("user", "the image's", "User that the command runs as", "--user"),
    "group": Key("group", "the user's", "Group that the command runs as", "--user USER:GROUP"),
    "working_directory": Key("directory", "the image's", "Directory that the command starts in", "--workdir"),
    "hostname": Key("hostname", "the container's name", "Host name in the container", "--hostname"),
    "ports": Key("ports", "[]", "Published ports", "--publish"),
    "mounts": Key(
        "mounts", "[]", "Directories, volumes and tmpfs in the container", "--volume, --mount, --tmpfs"
    ),
    "network": Key("network", '"pasta"', "How the container reaches the network", "--network"),
    "labels": Key("labels", "{}", "Labels of the container", "--label"),
    "annotations": Key("labels", "{}", "OCI annotations of the container", "--annotation"),
    "init": Key(
        "boolean", "false", "Run a small init as process 1 that reaps and forwards signals", "--init"
    ),
    "terminal": Key("boolean", "false", "Give the command a terminal", "--tty"),
    "interactive": Key("boolean", "false", "Keep standard input open", "--interactive"),
    "remove": Key("boolean", "false", "Remove a created container when it has ended", "--rm"),
    "stop_signal": Key(
        "signal", "the image's, or SIGTERM", "Signal that asks the container to stop", "--stop-signal"
    ),
    "stop_timeout": Key("duration", "10", "Seconds from the stop signal to SIGKILL", "--stop-timeout"),
    "restart": Key("restart", '"no"', "When systemd starts the container again", "--restart"),
    "notify": Key("notify", '"started"', "Who says that the container is ready", "--sdnotify"),
    "output": Key("output", '"auto"', "How standard output and error reach the journal", "--log-driver"),
    "writable_layer": Key("writable_layer", '"fresh"', "What becomes of the container's own changes", "--rm"),
    "resources.memory": Key(
        "memory", "no limit", "Memory above which the container is killed", "--memory, MemoryMax="
    ),
    "resources.memory_high": Key(
        "memory", "no limit", "Memory above which the container is slowed", "MemoryHigh="
    ),
    "resources.swap": Key(
        "swap", "as much as memory", "Swap beside the memory", "--memory-swap, MemorySwapMax="
    ),
    "resources.cpus": Key("cpus", "no limit", "Processors' worth of time", "--cpus, CPUQuota="),
    "resources.cpu_weight": Key("weight", "100", "Share of processor time under contention", "CPUWeight="),
    "resources.pids": Key("pids", "2048", "Number of processes and threads", "--pids-limit, TasksMax="),
    "resources.io_weight": Key("weight", "100", "Share of disk bandwidth under contention", "IOWeight="),
    "security.add_capabilities": Key(
        "capabilities", "[]", "Capabilities beyond the default ones", "--cap-add"
    ),
    "security.drop_capabilities": Key(
        "capabilities", "[]", "Default capabilities to do without", "--cap-drop"
    ),
    "security.read_only": Key("boolean", "false", "Mount the root file system read-only", "--read-only"),
    "security.no_new_privileges": Key(
        "boolean", "false", "Set-user-ID programs gain nothing", "--security-opt no-new-privileges"
    ),
    "security.seccomp": Key("seccomp", '"default"', "System call filter", "--security-opt seccomp="),
    "security.user_namespace": Key("user_namespace", '"default"', "Which IDs the container has", "--userns"),
    "health.command": Key(
        "health_command",
        "the image's",
        "A command in the container that tells whether it is well",
        "--health-cmd",
    ),
    "health.interval": Key("health_interval", "30", "Seconds between two checks", "--health-interval"),
    "health.timeout": Key("health_time", "30", "Seconds until a check is killed", "--health-timeout"),
    "health.retries": Key(
        "health_retries", "3", "Failures in a row that make it unhealthy", "--health-retries"
    ),
    "health.start_period": Key(
        "health_time", "0", "Seconds from the start in which failures do not count", "--health-start-period"
    ),
    "health.start_interval": Key(
        "health_time", "5", "Seconds between two checks in the start period", "--health-start-interval"
    ),
    "health.on_failure": Key(
        "health_action", '"none"', "What is done with an unhealthy container", "--health-on-failure"
    ),
    "desktop.allow": Key(
        "applications", "[]", "Sandboxed applications that may start, stop and watch the container", "flatpak"
    ),
    "desktop.notify": Key("boolean", "false", "Show a notification when the container fails", "OnFailure="),
    "unit": Key("directives", "{}", "Directives for the unit's [Unit] section", "systemd.unit(5)"),
    "service": Key("directives", "{}", "Directives for the unit's [Service] section", "systemd.service(5)"),
    "install": Key("directives", "{}", "Directives for the unit's [Install] section", "systemd.unit(5)"),
}

TABLES = ("resources", "security", "health", "desktop")  # tables with keys of their own in KEYS

# Choices of the keys that have some, with docker's and systemd's other spellings.
CHOICES: dict[str, tuple[str, ...]] = {
    "pull": ("missing", "always", "newer", "never"),
    "network": ("pasta", "none", "host"),
    "restart": ("no", "always", "on-success", "on-failure", "on-abnormal", "on-abort", "on-watchdog"),
    "notify": ("started", "container"),
    "output": ("auto", "journal", "pipe"),
    "writable_layer": ("fresh", "keep"),
    "user_namespace": ("default", "single"),
    "health_action": ("none", "kill", "restart", "stop"),
}
SYNONYMS: dict[str, dict[str, str]] = {"restart": {"unless-stopped": "always"}}

# Keys that a directive of [service] says again; the directive would silently have the last word.
DIRECTIVES = {
    "description": ("unit", "Description"),
    "restart": ("service", "Restart"),
    "stop_timeout": ("service", "TimeoutStopSec"),
    "resources.memory": ("service", "MemoryMax"),
    "resources.memory_high": ("service", "MemoryHigh"),
    "resources.swap": ("service", "MemorySwapMax"),
    "resources.cpus": ("service", "CPUQuota"),
    "resources.cpu_weight": ("service", "CPUWeight"),
    "resources.pids": ("service", "TasksMax"),
    "resources.io_weight": ("service", "IOWeight"),
}

# What docker, Compose and Quadlet call our keys, squashed (lower case, no separators).
ALIASES: dict[str, str] = {
    "volume": "mounts",
    "volumes": "mounts",
    "tmpfs": "mounts",
    "mount": "mounts",
    "publish": "ports",
    "publishport": "ports",
    "port": "ports",
    "env": "environment",
    "envfile": "environment_files",
    "environmentfile": "environment_files",
    "cmd": "command",
    "exec": "command",
    "args": "command",
    "arguments": "command",
    "networkmode": "network",
    "networks": "network",
    "net": "network",
    "pullpolicy": "pull",
    "restartpolicy": "restart",
    "runinit": "init",
    "tty": "terminal",
    "stdin": "interactive",
    "stdinopen": "interactive",
    "openstdin": "interactive",
    "rm": "remove",
    "autoremove": "remove",
    "sdnotify": "notify",
    "stopgraceperiod": "stop_timeout",
    "workdir": "working_directory",
    "workingdir": "working_directory",
    "label": "labels",
    "annotation": "annotations",
    "capadd": "security.add_capabilities",
    "addcapability": "security.add_capabilities",
    "capabilities": "security.add_capabilities",
    "capdrop": "security.drop_capabilities",
    "dropcapability": "security.drop_capabilities",
    "seccompprofile": "security.seccomp",
    "userns": "security.user_namespace",
    "usernsmode": "security.user_namespace",
    "readonlyrootfs": "security.read_only",
    "memlimit": "resources.memory",
    "memorymax": "resources.memory",
    "memoryswapmax": "resources.swap",
    "memswaplimit": "resources.swap",
    "memoryswap": "resources.swap",
    "cpuquota": "resources.cpus",
    "cpushares": "resources.cpu_weight",
    "pidslimit": "resources.pids",
    "tasksmax": "resources.pids",
    "blkioweight": "resources.io_weight",
    "healthcheck": "health.command",
    "healthcmd": "health.command",
    "healthinterval": "health.interval",
    "healthtimeout": "health.timeout",
    "healthretries": "health.retries",
    "healthstartperiod": "health.start_period",
    "healthonfailure": "health.on_failure",
    "wantedby": "install.wanted_by",
}

# Keys that people look for in vain, and why.
EXPLANATIONS: dict[str, str] = {
    "name": "a container is named by its file",
    "container": "the container's keys stand at the top, outside any table",
    "containername": "a container is named by its file",
    "privileged": "there is no privileged mode; [security] gives single capabilities",
    "detach": "the container always runs as a service",
    "secret": "secrets are not possible yet",
    "secrets": "secrets are not possible yet",
    "device": "devices are not possible yet",
    "devices": "devices are not possible yet",
    "sysctl": "kernel parameters are not possible yet",
    "sysctls": "kernel parameters are not possible yet",
    "dns": "name servers are the host's",
    "addhost": "entries of /etc/hosts are not possible yet",
    "extrahosts": "entries of /etc/hosts are not possible yet",
    "pod": "pods are not possible yet",
    "build": "images are not built here",
    "ulimit": "limits are directives of [service], such as LimitNOFILE",
    "ulimits": "limits are directives of [service], such as LimitNOFILE",
    "shmsize": 'a mount sets it: { type = "tmpfs", target = "/dev/shm", size = "64M" }',
    "logdriver": "the log is the unit's, in the journal",
    "logging": "the log is the unit's, in the journal",
    "dependson": 'an order is set by [unit]: Requires and After = "container@NAME.service"',
    "expose": "ports that are not published need no key",
    "podmanargs": "there is no Podman below",
}


def iterate_names() -> Iterator[str]:
    """Every key as the file writes it, with its table; ``install.wanted_by`` stands for the pass-through tables."""
    yield from KEYS
    yield "install.wanted_by"


def find_key(word: str) -> tuple[str | None, str | None]:
    """Return the likely key for an unknown ``word`` and an explanation; either may be None."""
    from usercontainerd.definition.suggestion import squash, suggest

    squashed = squash(word[:64])
    if squashed in EXPLANATIONS:
        return None, EXPLANATIONS[squashed]
    if squashed in ALIASES:
        return ALIASES[squashed], None
    leaves: dict[str, str] = {}
    for name in iterate_names():
        leaves.setdefault(name.rpartition(".")[2], name)  # what stands at the top first
    leaf = next((each for each in leaves if squash(each) == squashed), None)
    if leaf is None:
        from usercontainerd.definition.directive_names import SECTIONS

        for section, names in SECTIONS.items():
            for name in names:
                if name.lower() == squashed:
                    return f"{section}.{name}", None
        leaf = suggest(word, leaves)
    return (leaves[leaf] if leaf else None), None
