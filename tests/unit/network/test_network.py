"""pasta's arguments, resolv.conf and hosts."""

from usercontainerd.definition.model import Port
from usercontainerd.network.pasta import plan_pasta_arguments, render_port
from usercontainerd.network.resolver import build_hosts, build_resolv_conf


def test_ports() -> None:
    assert render_port(Port(8080, 80)) == "8080:80"
    assert render_port(Port(8080, 80, length=3, address="127.0.0.1")) == "127.0.0.1/8080-8082:80-82"
    arguments = plan_pasta_arguments((Port(1, 2), Port(3, 4, protocol="udp"), Port(5, 6)))
    text = " ".join(arguments)
    assert "-t 1:2 -t 5:6" in text
    assert "-u 3:4" in text


def test_without_ports_everything_is_closed() -> None:
    arguments = plan_pasta_arguments(())
    for option in ("-t", "-u", "-T", "-U"):
        assert arguments[arguments.index(option) + 1] == "none"
    assert "--no-map-gw" in arguments


def test_resolv_conf() -> None:
    host = "# by x\nsearch example.org\nnameserver 127.0.0.53\nnameserver 10.0.0.1\noptions edns0\n"
    assert build_resolv_conf(host, "pasta") == (
        "search example.org\noptions edns0\nnameserver 169.254.1.1\nnameserver 10.0.0.1\n"
    )
    assert "127.0.0.53" in build_resolv_conf(host, "host")
    assert build_resolv_conf(host, "none") == ""


def test_hosts() -> None:
    text = build_hosts("web", "web", "169.254.1.2")
    assert "169.254.1.2 host.containers.internal" in text
    assert "127.0.1.1 web\n" in text
    assert "internal" not in build_hosts("a", "b", None)
