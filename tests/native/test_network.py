"""Networks: what is published is reachable, what is not is not, in both directions."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.native.probes.network import ask
from tests.support.containers import Container, run, wait_until
from tests.support.ports import find_port
from tests.support.probes import PYTHON, list_mounts, probe_ours, render_definition

Serve = Callable[..., Container]
Make = Callable[..., Container]

HOST = "192.0.2.10"  # of the machine's uplink


@contextmanager
def listen_on_host(address: str) -> Iterator[int]:
    """A service of the host."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as server:
        server.bind((address, 0))
        server.listen()

        def answer() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                connection.send(b"the host")
                connection.close()

        threading.Thread(target=answer, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def serving(container: Make, tmp_path: Path) -> Serve:
    """Make containers that serve: ``serving([("tcp", "0.0.0.0", 80, "word")], 'ports = …')``."""

    def make(services: list[tuple[str, str, int, str]], toml: str = "") -> Container:
        output = tmp_path / f"out-{os.urandom(2).hex()}"
        plan = json.dumps({"serve": services, "stay": True})
        command = [*PYTHON, "network", "/out/found", plan]
        return container(render_definition(command, list_mounts(output), f"stop_timeout = 0\n{toml}"))

    return make


def look(output: Path, plan: dict[str, Any], toml: str) -> dict[str, Any]:
    found: dict[str, Any] = probe_ours("network", json.dumps(plan), output=output, toml=toml)
    return found


def wait_for(port: int, word: str, address: str = "127.0.0.1") -> None:
    wait_until(lambda: ask(address, port) == word, f"{word} is served at {address}:{port}")


def test_published_ports(serving: Serve) -> None:
    """On all addresses or on one, to another port, as a range; what is not published stays inside."""
    plain, moved, inner, hidden = (find_port() for _ in range(4))
    first = find_port(count=2)
    services = [(plain, "plain"), (inner, "moved"), (hidden, "hidden"), (7001, "one"), (7002, "two")]
    ports = [f"{plain}:{plain}", f"127.0.0.1:{moved}:{inner}", f"127.0.0.1:{first}-{first + 1}:7001-7002"]
    one = serving(
        [("tcp", "0.0.0.0", port, word) for port, word in services], f"ports = {json.dumps(ports)}\n"
    )
    one.start()
    wait_for(plain, "plain")
    assert ask(HOST, plain) == "plain"
    assert ask("127.0.0.1", moved) == "moved"
    assert ask(HOST, moved) == "ConnectionRefusedError"
    assert [ask("127.0.0.1", first), ask("127.0.0.1", first + 1)] == ["one", "two"]
    assert ask("127.0.0.1", hidden) == "ConnectionRefusedError"
    assert ask("127.0.0.1", inner) == "ConnectionRefusedError"


def test_published_port_of_udp(serving: Serve) -> None:
    port = find_port(socket.SOCK_DGRAM)
    one = serving([("udp", "0.0.0.0", port, "datagram")], f'ports = ["127.0.0.1:{port}:{port}/udp"]\n')
    one.start()

    def say() -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(0.2)
            client.sendto(b"hello", ("127.0.0.1", port))
            try:
                return client.recv(100) == b"datagram"
            except OSError:
                return False

    wait_until(say, "the datagram is answered")
    assert ask("127.0.0.1", port) == "ConnectionRefusedError"


def test_published_port_over_ipv6(serving: Serve) -> None:
    port = find_port(address="::1")
    one = serving([("tcp", "::", port, "six")], f'ports = ["{port}:{port}"]\n')
    one.start()
    wait_for(port, "six", "::1")


def test_taken_port_is_a_clear_failure_and_free_after_stop(serving: Serve) -> None:
    port = find_port()
    publish = f'ports = ["127.0.0.1:{port}:80"]\n'
    first, second = (serving([("tcp", "0.0.0.0", 80, word)], publish) for word in ("first", "second"))
    first.start()
    wait_for(port, "first")
    assert second.start(check=False).returncode != 0
    assert "port" in second.show("StatusText")
    assert str(port) in second.journal()
    assert ask("127.0.0.1", port) == "first"
    first.stop()
    assert ask("127.0.0.1", port) == "ConnectionRefusedError"
    second.start()
    wait_for(port, "second")


def test_a_start_after_a_run_that_nobody_cleaned_up_after(serving: Serve) -> None:
    """A clean-up that was killed leaves pasta, which has the ports."""
    port = find_port()
    one = serving([("tcp", "0.0.0.0", 80, "word")], f'ports = ["127.0.0.1:{port}:80"]\n')
    drop_in = Path("~/.config/systemd/user").expanduser() / f"{one.unit}.d/none.conf"
    drop_in.parent.mkdir(parents=True)
    try:
        drop_in.write_text("[Service]\nExecStopPost=\n")
        run("systemctl", "--user", "daemon-reload")
        one.start()
        wait_for(port, "word")
        one.stop()
        assert ask("127.0.0.1", port) != "ConnectionRefusedError"
        one.start()
        wait_for(port, "word")
        pids = (one.cgroup / "container/cgroup.procs").read_text().split()
        assert sum("pasta" in Path(f"/proc/{pid}/comm").read_text() for pid in pids) == 1
    finally:
        drop_in.unlink()
        drop_in.parent.rmdir()
        run("systemctl", "--user", "daemon-reload")
    one.stop()
    assert ask("127.0.0.1", port) == "ConnectionRefusedError"


def test_ports_inside_are_not_the_hosts(serving: Serve) -> None:
    """The same port in two containers and on the host, none published: no conflict, and nobody sees the others'."""
    with listen_on_host("127.0.0.1") as port:
        made = [serving([("tcp", "127.0.0.1", port, "inside")]) for _ in range(2)]
        for one in made:
            one.start()
        assert ask("127.0.0.1", port) == "the host"
        assert all(one.show("ActiveState") == "active" for one in made)


def test_services_of_the_host(tmp_path: Path) -> None:
    """Bound to all addresses they answer under host.containers.internal; bound to loopback they do not."""
    with (
        listen_on_host("0.0.0.0") as public,
        listen_on_host("127.0.0.1") as private,
        listen_on_host("::1") as six,
    ):
        closed = [
            [a, private] for a in ("127.0.0.1", "host.containers.internal", HOST, "192.0.2.1", "169.254.1.1")
        ]
        plan = {"ask": [["host.containers.internal", public], *closed, ["::1", six], ["2001:db8::1", six]]}
        found = look(tmp_path / "out", plan, "")
    assert found["asked"][0] == "the host"
    assert found["interfaces"] == ["lo", "uplink0"]
    assert found["tun_flags"] & 0x800  # IFF_PERSIST: no stop waits for the kernel to take it down
    assert set(found["asked"][1:]) <= {"ConnectionRefusedError", "TimeoutError", "OSError"}
    assert found["ping"] == "answered"


def test_without_network_there_is_loopback_only(tmp_path: Path) -> None:
    plan = {"serve": [["tcp", "0.0.0.0", 80, "own"]], "ask": [["127.0.0.1", 80], [HOST, 80]]}
    found = look(tmp_path / "out", plan, 'network = "none"\n')
    assert found["asked"] == ["own", "OSError"]
    assert found["interfaces"] == ["lo"]
    assert found["routes"] == []
    assert found["resolv.conf"] == ""
    assert found["ping"] == "answered"


def test_network_of_the_host(tmp_path: Path) -> None:
    """Everything of the host's, its loopback too: that is what the word means."""
    with listen_on_host("127.0.0.1") as port:
        found = look(tmp_path / "out", {"ask": [["127.0.0.1", port]]}, 'network = "host"\n')
    assert found["asked"] == ["the host"]
    assert found["space"] == os.readlink("/proc/self/ns/net")


def test_low_ports_of_an_ordinary_user(tmp_path: Path) -> None:
    """Port 80 and a ping need no capability inside; root needs none of the host's."""
    plan = {"serve": [["tcp", "0.0.0.0", 80, "low"]], "ask": [["127.0.0.1", 80]]}
    found = look(
        tmp_path / "out",
        plan,
        'security.drop_capabilities = ["ALL"]\nsecurity.add_capabilities = ["NET_BIND_SERVICE"]\n',
    )
    assert found["asked"] == ["low"]
    assert found["ping"] == "answered"


def test_ports_need_a_network(container: Make) -> None:
    one = container('image = "x"\nnetwork = "none"\nports = ["8080:80"]\n')
    assert one.start(check=False).returncode != 0
    assert "ports" in one.journal()


def test_pasta_dies_with_the_unit(serving: Serve) -> None:
    one = serving([])
    one.start()
    pids: list[int] = []

    def only_pasta() -> bool:
        pids[:] = map(int, (one.cgroup / "container/cgroup.procs").read_text().split())
        return [
            run("ps", "-o", "comm=", "-p", str(pid), check=False).stdout[:5] for pid in pids if pid != one.pid
        ] == ["pasta"]

    wait_until(only_pasta, "the launcher's end")  # which comes a moment after READY
    one.stop()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
