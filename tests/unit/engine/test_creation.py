"""Names, pinned images and what depends on the image."""

from __future__ import annotations

from typing import Any

import pytest

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.base.names import is_container_name
from usercontainerd.definition.model import Definition, Port
from usercontainerd.engine.containers.creation import (
    complete_definition,
    find_free_port,
    pin_image,
    plan_exposed_ports,
)
from usercontainerd.engine.containers.naming import generate_name
from usercontainerd.oci.digest import Digest
from usercontainerd.oci.image import ImageConfiguration
from usercontainerd.oci.platform import Platform
from usercontainerd.store.records import ImageRecord, NameRecord

IMAGE, MANIFEST = Digest("sha256:" + "aa" * 32), Digest("sha256:" + "bb" * 32)
DEFINITION = Definition("web", "nginx")


def record(*names: str) -> ImageRecord:
    known = [NameRecord(name, IMAGE, [MANIFEST]) for name in names]
    return ImageRecord(
        IMAGE, manifest=MANIFEST, layers=[], size=1, created="", platform="linux/amd64", pulled=0, names=known
    )


def image(**fields: Any) -> ImageConfiguration:
    return ImageConfiguration(Platform("linux", "amd64"), (), **{"command": ("serve",), **fields})


@pytest.mark.parametrize(
    ("text", "names", "expected"),
    [
        ("nginx", ["docker.io/library/nginx:latest"], f"docker.io/library/nginx:latest@{MANIFEST}"),
        ("nginx:1", ["a.io/other:1", "a.io/nginx:1"], f"a.io/nginx:1@{MANIFEST}"),
        (str(IMAGE), ["a.io/other:1"], f"a.io/other:1@{MANIFEST}"),
        ("aaaaaaaaaaaa", [], str(IMAGE)),
        ("a.io/x", [f"a.io/x@{MANIFEST}"], f"a.io/x@{MANIFEST}"),
    ],
)
def test_the_image_is_pinned(text: str, names: list[str], expected: str) -> None:
    assert pin_image(text, record(*names)) == expected


def test_what_the_image_says_is_fixed() -> None:
    whole = complete_definition(DEFINITION, record(), image(stop_signal="QUIT"))
    assert whole.stop_signal == "SIGQUIT"
    assert complete_definition(DEFINITION, record(), image(stop_signal="\x1bnonsense")).stop_signal is None
    own = Definition("web", "nginx", stop_signal="SIGINT")
    assert complete_definition(own, record(), image(stop_signal="QUIT")).stop_signal == "SIGINT"
    with pytest.raises(InvalidArgument, match="what to run"):
        complete_definition(DEFINITION, record(), image(command=None))


def test_exposed_ports_are_published_once() -> None:
    exposed = image(exposed_ports=("80/tcp", "53/udp", "443", "8080/tcp", "1/sctp", "x/tcp"))
    published = Definition("web", "nginx", ports=(Port(9000, 8079, 2),))
    ports = plan_exposed_ports(published, exposed)
    assert [(port.container, port.protocol) for port in ports] == [(80, "tcp"), (53, "udp"), (443, "tcp")]
    assert all(1024 <= port.host <= 65535 for port in ports)
    whole = complete_definition(published, record(), exposed, publish_all=True)
    assert whole.ports[0] == published.ports[0]
    assert [port.container for port in whole.ports[1:]] == [80, 53, 443]


def test_no_port_at_a_foreign_address() -> None:
    with pytest.raises(InvalidArgument, match="no port can be had"):
        find_free_port("tcp", "203.0.113.7")


def test_generated_names() -> None:
    names = {generate_name(lambda _: False) for _ in range(50)}
    assert len(names) > 30
    assert all(is_container_name(name) and "_" in name for name in names)
    taken: list[str] = []

    def is_taken(name: str) -> bool:
        taken.append(name)
        return len(taken) < 15

    assert generate_name(is_taken)[-1].isdigit()
    assert is_container_name(generate_name(lambda _: True))
