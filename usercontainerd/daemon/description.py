"""The interfaces that the daemon serves, as the XML files in ``dbus/`` describe them: they are the source of truth.

dbus-next's own reader drops annotations, and with them what a client's cache relies on (EmitsChangedSignal).
"""

from __future__ import annotations

import os
from enum import StrEnum
from xml.etree import ElementTree

from usercontainerd.base.programs import list_places
from usercontainerd.base.records import dataclass, field

_EMITS = "org.freedesktop.DBus.Property.EmitsChangedSignal"


class Emits(StrEnum):
    """What happens when a property changes (D-Bus specification, "Introspection Data Format")."""

    VALUE = "true"
    INVALIDATES = "invalidates"
    CONST = "const"
    NEVER = "false"


@dataclass(frozen=True)
class Method:
    """Signatures of what goes in and what comes out, each all arguments in a row."""

    name: str
    inputs: str
    outputs: str


@dataclass(frozen=True)
class Property:
    """One property; ``writable`` if it can be set."""

    name: str
    signature: str
    writable: bool
    emits: Emits


@dataclass(frozen=True)
class Interface:
    """One interface. ``xml`` is its element as Introspect returns it."""

    name: str
    methods: dict[str, Method] = field(default_factory=dict)
    signals: dict[str, str] = field(default_factory=dict)
    properties: dict[str, Property] = field(default_factory=dict)
    xml: str = ""


def find_descriptions(package: str = __file__) -> str:
    """Return the directory of the XML files: this checkout's, those in this wheel, else those of its prefix."""
    places = list_places("dbus", "share/dbus-1/interfaces", package)
    found = (each for each in places if os.path.exists(f"{each}/org.usercontainer1.Manager.xml"))
    return next(found, places[-1])


def read_interface(directory: str, name: str) -> Interface:
    """Read ``NAME.xml``. The file is our own: what is wrong with it is an error of ours, a ``ValueError``."""
    root = ElementTree.parse(f"{directory}/{name}.xml").getroot()  # noqa: S314 - our own file
    return parse_interface(root, name)


def parse_interface(root: ElementTree.Element, name: str) -> Interface:
    """Return the interface ``name`` of an introspection document. Raises ``ValueError``."""
    element = next((each for each in root.iter("interface") if each.get("name") == name), None)
    if element is None:
        raise ValueError(f"there is no interface {name}")
    default = _read_emits(element, Emits.VALUE)
    methods = {}
    for each in element.findall("method"):
        methods[_name(each)] = Method(_name(each), _join_arguments(each, "in"), _join_arguments(each, "out"))
    signals = {
        _name(each): "".join(arg.get("type", "") for arg in each.findall("arg"))
        for each in element.findall("signal")
    }
    properties = {}
    for each in element.findall("property"):
        writable = each.get("access") in ("readwrite", "write")
        properties[_name(each)] = Property(
            _name(each), each.get("type", ""), writable, _read_emits(each, default)
        )
    return Interface(name, methods, signals, properties, _render(element))


def _name(element: ElementTree.Element) -> str:
    name = element.get("name")
    if not name:
        raise ValueError(f"a {element.tag} has no name")
    return name


def _join_arguments(method: ElementTree.Element, direction: str) -> str:
    return "".join(
        arg.get("type", "") for arg in method.findall("arg") if arg.get("direction", "in") == direction
    )


def _read_emits(element: ElementTree.Element, default: Emits) -> Emits:
    for each in element.findall("annotation"):
        if each.get("name") == _EMITS:
            return Emits(each.get("value", ""))
    return default


def _render(element: ElementTree.Element) -> str:
    copy = ElementTree.fromstring(ElementTree.tostring(element))  # noqa: S314
    ElementTree.indent(copy, space=" ", level=1)
    return ElementTree.tostring(copy, encoding="unicode").rstrip()


STANDARD_XML = """\
 <interface name="org.freedesktop.DBus.Introspectable">
  <method name="Introspect">
   <arg name="xml_data" type="s" direction="out"/>
  </method>
 </interface>
 <interface name="org.freedesktop.DBus.Peer">
  <method name="Ping"/>
  <method name="GetMachineId">
   <arg name="machine_uuid" type="s" direction="out"/>
  </method>
 </interface>
 <interface name="org.freedesktop.DBus.Properties">
  <method name="Get">
   <arg name="interface_name" type="s" direction="in"/>
   <arg name="property_name" type="s" direction="in"/>
   <arg name="value" type="v" direction="out"/>
  </method>
  <method name="GetAll">
   <arg name="interface_name" type="s" direction="in"/>
   <arg name="properties" type="a{sv}" direction="out"/>
  </method>
  <method name="Set">
   <arg name="interface_name" type="s" direction="in"/>
   <arg name="property_name" type="s" direction="in"/>
   <arg name="value" type="v" direction="in"/>
  </method>
  <signal name="PropertiesChanged">
   <arg name="interface_name" type="s"/>
   <arg name="changed_properties" type="a{sv}"/>
   <arg name="invalidated_properties" type="as"/>
  </signal>
 </interface>
"""
MANAGER_XML = """\
 <interface name="org.freedesktop.DBus.ObjectManager">
  <method name="GetManagedObjects">
   <arg name="objects" type="a{oa{sa{sv}}}" direction="out"/>
  </method>
  <signal name="InterfacesAdded">
   <arg name="object_path" type="o"/>
   <arg name="interfaces_and_properties" type="a{sa{sv}}"/>
  </signal>
  <signal name="InterfacesRemoved">
   <arg name="object_path" type="o"/>
   <arg name="interfaces" type="as"/>
  </signal>
 </interface>
"""
