"""The table of a definition that docker's options for a new container mean.

The table has the keys and types of a definition's TOML, so that one set of rules (see ``definition.toml_reader``)
serves both; only what docker spells otherwise is translated here.
"""

from __future__ import annotations

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.base.sizes import parse_size
from usercontainerd.cli.execute import read_variables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from usercontainerd.cli.call import Call
    from usercontainerd.cli.options import Options
    from usercontainerd.definition.diagnostic import Diagnostic

# How a problem with a key of the table is shown: by the option that the key came from.
_FLAGS = {
    "annotations": "--annotation",
    "command": "the command",
    "entrypoint": "--entrypoint",
    "environment": "--env",
    "health.command": "--health-cmd",
    "health.interval": "--health-interval",
    "health.on_failure": "--health-on-failure",
    "health.retries": "--health-retries",
    "health.start_interval": "--health-start-interval",
    "health.start_period": "--health-start-period",
    "health.timeout": "--health-timeout",
    "hostname": "--hostname",
    "image": "the image",
    "labels": "--label",
    "mounts": "--volume, --mount or --tmpfs",
    "network": "--network",
    "ports": "--publish",
    "remove": "--rm",
    "resources.cpu_weight": "--cpu-shares",
    "resources.cpus": "--cpus",
    "resources.io_weight": "--blkio-weight",
    "resources.memory": "--memory",
    "resources.pids": "--pids-limit",
    "resources.swap": "--memory-swap",
    "restart": "--restart",
    "security.add_capabilities": "--cap-add",
    "security.drop_capabilities": "--cap-drop",
    "security.seccomp": "--security-opt seccomp",
    "security.user_namespace": "--userns",
    "stop_signal": "--stop-signal",
    "stop_timeout": "--stop-timeout",
    "user": "--user",
    "working_directory": "--workdir",
}
_NETWORKS = {
    "bridge": "pasta",
    "default": "pasta",
    "private": "pasta",
    "pasta": "pasta",
    "slirp4netns": "pasta",
    "none": "none",
    "host": "host",
}
_RESTARTS = {"no": "no", "": "no", "always": "always", "unless-stopped": "always", "on-failure": "on-failure"}


def build_table(call: Call) -> dict[str, Any]:
    """Return the definition's table that the command line means. Raises ``InvalidArgument``."""
    options = call.options
    image, *command = options.words
    table: dict[str, Any] = {"image": image}
    if command:
        table["command"] = command
    for key, name in (
        ("user", "user"),
        ("working_directory", "workdir"),
        ("hostname", "hostname"),
        ("stop_signal", "stop-signal"),
    ):
        value = options.value(name)
        if value is not None:
            table[key] = value
    _add_process(call, table)
    _add_network(options, table)
    _add_mounts(options, table)
    _add_resources(options, table)
    _add_health(options, table)
    _add_security(options, table)
    _add_unit(options, table)
    return table


def _add_process(call: Call, table: dict[str, Any]) -> None:
    options = call.options
    if options.given("entrypoint"):
        table["entrypoint"] = parse_entrypoint(options.value("entrypoint") or "")
    variables = read_variables(call)
    if variables:
        table["environment"] = dict(variables)
    labels = dict(_read_pairs(options.values("label-file"), options.values("label"), "--label"))
    if labels:
        table["labels"] = labels
    annotations = dict(_read_pairs((), options.values("annotation"), "--annotation"))
    if annotations:
        table["annotations"] = annotations
    for key, name in (
        ("init", "init"),
        ("interactive", "interactive"),
        ("terminal", "tty"),
        ("remove", "rm"),
    ):
        if options.given(name):
            table[key] = options.flag(name)
    timeout = options.value("stop-timeout")
    if timeout is not None:
        table["stop_timeout"] = "infinity" if timeout == "-1" else _parse_integer(timeout, "--stop-timeout")


def parse_entrypoint(text: str) -> list[str]:
    """docker's single word, podman's JSON array of words, or empty for none."""
    if not text.startswith("["):
        return [text] if text else []
    import json

    try:
        words = json.loads(text)
    except ValueError:
        return [text]
    if not all(isinstance(word, str) for word in words):
        raise InvalidArgument("--entrypoint: the array may hold texts only")
    return list(words)


def _read_pairs(files: tuple[str, ...], texts: tuple[str, ...], flag: str) -> list[tuple[str, str]]:
    lines = []
    for path in files:
        try:
            with open(path, encoding="utf-8") as file:
                lines += [line.rstrip("\n") for line in file if line.strip() and line[0] != "#"]
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidArgument(f"cannot read it: {error}", where=path) from error
    pairs = []
    for text in (*lines, *texts):
        name, _, value = text.partition("=")
        if not name.strip():
            raise InvalidArgument(f'{flag} "{text}" has no name')
        pairs.append((name, value))
    return pairs


def _add_network(options: Options, table: dict[str, Any]) -> None:
    mode = options.value("network")
    if mode is not None:
        known = _NETWORKS.get(mode.partition(":")[0])
        if known is None:
            raise InvalidArgument(
                f'--network: there is no network "{mode}"', hint="possible are pasta, none and host"
            )
        table["network"] = known
    ports = [complete_port(text) for text in options.values("publish")]
    if ports:
        table["ports"] = ports


def complete_port(text: str) -> str:
    """Return ``text`` with a port of the host: docker lets ``-p 80`` and ``-p 127.0.0.1::80`` leave it open."""
    rest, slash, protocol = text.partition("/")
    head, _, container = rest.rpartition(":")
    if head and not head.endswith(":"):
        return text
    if not container.isdecimal():
        return text  # the parser says what is wrong
    from usercontainerd.engine.containers.creation import find_free_port

    address = head.removesuffix(":")
    port = find_free_port(protocol or "tcp", address.strip("[]"))
    return (
        f"{address}:{port}:{container}{slash}{protocol}"
        if address
        else f"{port}:{container}{slash}{protocol}"
    )


def _add_mounts(options: Options, table: dict[str, Any]) -> None:
    mounts: list[str | dict[str, Any]] = [plan_volume(text) for text in options.values("volume")]
    mounts += [parse_mount(text) for text in options.values("mount")]
    mounts += [parse_tmpfs(text) for text in options.values("tmpfs")]
    if mounts:
        table["mounts"] = mounts


def plan_volume(text: str) -> str | dict[str, Any]:
    """``-v``: as it is, but a volume without a name gets one, 64 digits as docker's."""
    if ":" in text:
        return text
    return {"type": "volume", "source": make_volume_name(), "target": text}


def make_volume_name() -> str:
    """A name that nobody else has."""
    import os

    return os.urandom(32).hex()


_MOUNT_KEYS = {
    "dst": "target",
    "destination": "target",
    "target": "target",
    "src": "source",
    "source": "source",
    "type": "type",
    "tmpfs-mode": "mode",
    "tmpfs-size": "size",
}


def parse_mount(text: str) -> dict[str, Any]:
    """``--mount type=bind,source=/data,target=/data,readonly``, as a mount's table. Raises ``InvalidArgument``."""
    mount: dict[str, Any] = {}
    words = []
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if key in ("readonly", "ro", "rw"):
            mount["read_only"] = (value not in ("false", "0")) == (key != "rw")
        elif key in _MOUNT_KEYS and equals:
            mount[_MOUNT_KEYS[key]] = value
        elif key == "bind-propagation" and equals:
            words.append(value)
        elif key in ("bind-nonrecursive", "volume-nocopy"):
            words += ["bind"] if key == "bind-nonrecursive" else ["nocopy"]
        else:
            raise InvalidArgument(
                f'--mount: "{part}" is not possible',
                hint="possible are type, source, target, readonly, bind-propagation, tmpfs-size, tmpfs-mode",
            )
    mount.setdefault("type", "volume")
    if mount["type"] == "volume" and not mount.get("source"):
        mount["source"] = make_volume_name()
    if words:
        mount["options"] = words
    return mount


def parse_tmpfs(text: str) -> dict[str, Any]:
    """``--tmpfs /run:size=64M,mode=1777,noexec``, as a mount's table."""
    target, _, rest = text.partition(":")
    mount: dict[str, Any] = {"type": "tmpfs", "target": target}
    words = []
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if equals and key in ("size", "mode"):
            mount[key] = value
        elif part in ("ro", "rw"):
            mount["read_only"] = part == "ro"
        else:
            words.append(part)
    if words:
        mount["options"] = words
    return mount


def _add_resources(options: Options, table: dict[str, Any]) -> None:
    memory = options.value("memory")
    resources = read_resources(options)
    swap = options.value("memory-swap")
    if swap == "-1":
        resources["swap"] = "infinity"
    elif swap is not None and swap != "0":
        if memory is None or parse_size(swap) < parse_size(memory):
            raise InvalidArgument("--memory-swap counts memory, too: it needs --memory, and at least as much")
        resources["swap"] = parse_size(swap) - parse_size(memory)
    if resources:
        table["resources"] = resources


def read_resources(options: Options) -> dict[str, Any]:
    """The table ``resources`` that the options mean, but for swap, whose option counts the memory, too.

    A limit of 0 is none: it is left out. Raises ``InvalidArgument``.
    """
    resources: dict[str, Any] = {}
    memory = options.value("memory")
    if memory is not None and memory != "0":
        resources["memory"] = memory
    cpus = options.value("cpus")
    if cpus is not None:
        try:
            number = float(cpus)
        except ValueError:
            raise InvalidArgument(f'--cpus: "{cpus}" is no number') from None
        if number:
            resources["cpus"] = number
    shares = options.value("cpu-shares")
    if shares is not None and shares != "0":
        resources["cpu_weight"] = convert_shares(_parse_integer(shares, "--cpu-shares"))
    pids = options.value("pids-limit")
    if pids is not None:
        number = _parse_integer(pids, "--pids-limit")
        resources["pids"] = "infinity" if number <= 0 else number
    weight = options.value("blkio-weight")
    if weight is not None and weight != "0":
        number = _parse_integer(weight, "--blkio-weight")
        resources["io_weight"] = 1 + (min(max(number, 10), 1000) - 10) * 9999 // 990  # as crun converts it
    return resources


def convert_shares(shares: int) -> int:
    """cgroup v1's shares as v2's weight, as crun converts them: 1024 is 39."""
    return 1 + (min(max(shares, 2), 262144) - 2) * 9999 // 262142


def _parse_integer(text: str, flag: str) -> int:
    if not text.lstrip("-").isdecimal():
        raise InvalidArgument(f'{flag}: "{text}" is no whole number')
    return int(text)


def _add_health(options: Options, table: dict[str, Any]) -> None:
    health: dict[str, Any] = {}
    command = options.value("health-cmd")
    if command is not None:
        health["command"] = parse_health_command(command)
    for key in ("interval", "timeout", "start-period", "start-interval", "on-failure"):
        value = options.value(f"health-{key}")
        if value is not None:
            health[key.replace("-", "_")] = value
    retries = options.value("health-retries")
    if retries is not None:
        health["retries"] = _parse_integer(retries, "--health-retries")
    if options.flag("no-healthcheck"):
        if health:
            raise InvalidArgument("--no-healthcheck goes with no other option about health")
        health["command"] = []
    if health:
        table["health"] = health


def parse_health_command(text: str) -> str | list[str]:
    """``--health-cmd``: words if it is a JSON array (perhaps after podman's ``CMD``), else a text for a shell."""
    words = parse_entrypoint(text) if text.startswith("[") else [text]
    if len(words) == 1 and words[0] == text:
        return text
    return words[1] if words[:1] == ["CMD-SHELL"] and len(words) == 2 else words[words[:1] == ["CMD"] :]


def _add_security(options: Options, table: dict[str, Any]) -> None:
    security: dict[str, Any] = {}
    if options.values("cap-add"):
        security["add_capabilities"] = _split_all(options.values("cap-add"))
    if options.values("cap-drop"):
        security["drop_capabilities"] = _split_all(options.values("cap-drop"))
    if options.given("read-only"):
        security["read_only"] = options.flag("read-only")
    for text in options.values("security-opt"):
        security.update(parse_security_option(text))
    mode = options.value("userns")
    if mode is not None:
        if mode not in ("", "default", "single"):
            raise InvalidArgument(
                f'--userns: "{mode}" is not possible', hint="possible are default and single"
            )
        security["user_namespace"] = mode or "default"
    if security:
        table["security"] = security


def _split_all(texts: tuple[str, ...]) -> list[str]:
    return [word for text in texts for word in text.split(",") if word]


def parse_security_option(text: str) -> dict[str, Any]:
    """One ``--security-opt``. Raises ``InvalidArgument``."""
    key, _, value = text.replace(":", "=", 1).partition("=")
    if key == "no-new-privileges" and value in ("", "true", "false"):
        return {"no_new_privileges": value != "false"}
    if key == "seccomp" and value:
        # A profile's name would be taken for a word: a path has a slash.
        return {"seccomp": value if "/" in value or value == "unconfined" else f"./{value}"}
    if text in ("label=disable", "label:disable", "apparmor=unconfined", "apparmor:unconfined"):
        return {}  # neither is in force
    raise InvalidArgument(
        f'--security-opt "{text}" is not possible',
        hint="possible are no-new-privileges, seccomp=unconfined, seccomp=FILE",
    )


def plan_restart(policy: str) -> dict[str, Any]:
    """What ``--restart`` means: the key and the directives that go with it. Raises ``InvalidArgument``."""
    kind, colon, times = policy.partition(":")
    if kind not in _RESTARTS or (colon and kind != "on-failure"):
        raise InvalidArgument(
            f'--restart: "{policy}" is no policy',
            hint="possible are no, always, unless-stopped, on-failure[:TIMES]",
        )
    table: dict[str, Any] = {"restart": _RESTARTS[kind]}
    if table["restart"] != "no":
        # docker goes on for ever, but ever more slowly; systemd would give up after five failures.
        table["service"] = {"RestartSec": "100ms", "RestartSteps": "10", "RestartMaxDelaySec": "1min"}
        table["unit"] = {"StartLimitIntervalSec": "0"}
        if colon:
            count = _parse_integer(times, "--restart on-failure")
            table["unit"] = {"StartLimitIntervalSec": "1h", "StartLimitBurst": str(count + 1)}
    if table["restart"] == "always":
        table["install"] = {"WantedBy": ["default.target"]}
    return table


def read_reservation(options: Options) -> dict[str, str]:
    """The directive that ``--memory-reservation`` means; none for 0. Raises ``InvalidArgument``."""
    reservation = options.value("memory-reservation")
    return {} if reservation is None or reservation == "0" else {"MemoryLow": str(parse_size(reservation))}


def _add_unit(options: Options, table: dict[str, Any]) -> None:
    policy = options.value("restart")
    if policy is not None:
        table.update(plan_restart(policy))
    service = {**table.get("service", {}), **read_reservation(options)}
    driver = options.value("log-driver")
    if driver == "none":
        service.update({"StandardOutput": "null", "StandardError": "null"})
    elif driver not in (None, "", "journald", "passthrough"):
        raise InvalidArgument(f'--log-driver: "{driver}" is not possible', hint="the log is the journal")
    if service:
        table["service"] = service


def explain_diagnostics(diagnostics: tuple[Diagnostic, ...]) -> InvalidArgument:
    """The error for a table that means no container: each problem by the option that it came from."""
    return InvalidArgument("; ".join(render_problem(each) for each in diagnostics if each.is_error))


def render_problem(problem: Diagnostic) -> str:
    """A problem of the table, as one of the command line."""
    key = problem.key.partition("[")[0]
    known = next((flag for start, flag in _FLAGS.items() if key == start or key.startswith(f"{start}.")), key)
    suggestion = f' (did you mean "{problem.suggestion}"?)' if problem.suggestion else ""
    return f"{known}: {problem.message}{suggestion}"
