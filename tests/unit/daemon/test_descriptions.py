"""The XML files of ``dbus/``: well-formed, complete, and every method ends with options."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from dbus_next import SignatureTree

from usercontainerd.daemon.description import Emits, find_descriptions, read_interface
from usercontainerd.engine.host.facts import list_features

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


def read_manual() -> str:
    return (TOP / "man/org.usercontainer1.5").read_text().replace("\\-", "-")


def test_features_are_explained() -> None:
    """A client that asks for one has to know what it stands for."""
    entry = read_manual().partition('.BR Features " as"')[2].partition(".TP")[0]
    assert re.findall(r"^\.B ([a-z-]+)$", entry, re.MULTILINE) == list_features()


def test_operations_of_jobs_are_all_named() -> None:
    """Those that the daemon starts; in the manual and in the XML."""
    started = set()
    for module in (TOP / "usercontainerd/daemon").glob("*.py"):
        started |= set(re.findall(r'jobs\.start\(\s*call, "([a-z-]+)"', module.read_text()))
    started.add("exec")
    assert {"pull", "copy-in", "commit", "check"} <= started
    entry = read_manual().partition('.BR Operation " s"')[2].partition(".TP")[0]
    assert set(re.findall(r"^\.BR? ([a-z-]+)", entry, re.MULTILINE)) == started
    comment = (TOP / "dbus/org.usercontainer1.Job.xml").read_text().partition('name="Cancel"')[2]
    (listed,) = re.findall(r"<!-- ([a-z, -]+)\. -->\s*<property name=\"Operation\"", comment)
    assert set(listed.split(", ")) == started
