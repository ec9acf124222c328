"""pasta(1): the user-mode network of a container. The plan is pure; the launcher runs it."""

from __future__ import annotations

from usercontainerd.definition.model import Port

PASTA = "/usr/bin/pasta"
# Link-local addresses that Podman uses for the same purposes: scripts may know them.
DNS_FORWARD = "169.254.1.1"
HOST_ADDRESS = "169.254.1.2"


def plan_pasta_arguments(ports: tuple[Port, ...]) -> tuple[str, ...]:
    """Return pasta's arguments but for the namespaces: published ports in, everything out, nothing else."""
    arguments = [
        "--config-net",
        "--quiet",
        "--no-netns-quit",
        "--dns-forward",
        DNS_FORWARD,
        "--map-guest-addr",
        HOST_ADDRESS,
        "--no-map-gw",
    ]
    for option, protocol in (("-t", "tcp"), ("-u", "udp")):
        chosen = [port for port in ports if port.protocol == protocol]
        for port in chosen:
            arguments += [option, render_port(port)]
        if not chosen:
            arguments += [option, "none"]
    # The other direction (container's ports that appear on the host's loopback) stays closed.
    return (*arguments, "-T", "none", "-U", "none")


def render_port(port: Port) -> str:
    """pasta's spelling: ``ADDRESS/HOST-RANGE:CONTAINER-RANGE``."""

    def span(first: int) -> str:
        return str(first) if port.length == 1 else f"{first}-{first + port.length - 1}"

    address = f"{port.address}/" if port.address else ""
    return f"{address}{span(port.host)}:{span(port.container)}"
