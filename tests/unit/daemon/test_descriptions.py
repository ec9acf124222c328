"""The XML files of ``dbus/``: well-formed, complete, and every method ends with options."""

from __future__ import annotations

from pathlib import Path

import pytest
from dbus_next import SignatureTree

from usercontainerd.daemon.description import Emits, find_descriptions, read_interface

TOP = Path(__file__).resolve().parents[3]
NAMES = sorted(path.stem for path in (TOP / "dbus").glob("*.xml"))


def test_there_are_some() -> None:
    assert "org.usercontainer1.Manager" in NAMES
    assert Path(find_descriptions()) == TOP / "dbus"


@pytest.mark.parametrize("name", NAMES)
def test_description(name: str) -> None:
    interface = read_interface(str(TOP / "dbus"), name)
    assert interface.name == name
    assert interface.methods
    for method in interface.methods.values():
        assert method.inputs.endswith("a{sv}"), f"{method.name} has no options"
        SignatureTree(method.inputs)
        SignatureTree(method.outputs)
    for each in interface.properties.values():
        assert len(SignatureTree(each.signature).types) == 1
    for signature in interface.signals.values():
        SignatureTree(signature)


def test_annotations_are_read() -> None:
    interface = read_interface(str(TOP / "dbus"), "org.usercontainer1.Container")
    assert interface.properties["Id"].emits is Emits.CONST
    assert interface.properties["State"].emits is Emits.VALUE
    assert "EmitsChangedSignal" in interface.xml
