"""/etc/resolv.conf and /etc/hosts of a container. Pure, and light: the launcher writes resolv.conf at every start."""

from __future__ import annotations


def build_resolv_conf(host: str, network: str, dns_forward: str = "169.254.1.1") -> str:
    """Return the container's resolv.conf (resolv.conf(5)) made from the host's text.

    With pasta, its forwarder comes first (it reaches a resolver on the host's loopback, such as systemd-resolved),
    then the host's servers that are reachable from a namespace. With ``none`` there is nobody to ask.
    """
    if network == "none":
        return ""
    servers, other = [], []
    for line in host.splitlines():
        words = line.split()
        if not words or words[0][0] in "#;":
            continue
        if words[0] == "nameserver" and len(words) > 1:
            servers.append(words[1])
        elif words[0] in ("search", "domain", "options", "sortlist"):
            other.append(line)
    if network == "pasta":
        servers = [dns_forward, *(server for server in servers if not _is_loopback(server))]
    return "".join(f"{line}\n" for line in [*other, *(f"nameserver {server}" for server in servers)])


def _is_loopback(server: str) -> bool:
    return server.startswith("127.") or server == "::1"


def build_hosts(hostname: str, container: str, host_address: str | None) -> str:
    """Return the container's hosts file (hosts(5)); ``host_address`` is how the host is reached, if it is."""
    names = hostname if hostname == container else f"{hostname} {container}"
    lines = ["127.0.0.1 localhost localhost.localdomain", "::1 localhost localhost.localdomain"]
    if host_address is not None:
        lines.append(f"{host_address} host.containers.internal host.docker.internal")
    lines.append(f"127.0.1.1 {names}")
    return "".join(f"{line}\n" for line in lines)
