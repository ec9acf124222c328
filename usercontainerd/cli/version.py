"""``usercontainer version``."""

from __future__ import annotations

import os

from usercontainerd import __version__
from usercontainerd.base.errors import printable
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import write_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from usercontainerd.cli.call import Call
    from usercontainerd.engine.host.components import Component

INTERFACE = "org.usercontainer1"
VERSION = Verb(
    "version",
    "",
    "Show the version, and those of what containers run on",
    (Option("-f, --format TEMPLATE", "a Go template such as '{{.Client.Version}}', or json"),),
    most=0,
    details="Fields: .Client with .Version .APIVersion .Os .Arch .OsArch, .Components with .Name .Version .Path.\n"
    "`usercontainer --version` prints one line.",
)


def write_short_version() -> None:
    """What ``--version`` prints: programs read this line, and nothing is started for it."""
    write_output(f"usercontainer version {__version__}\n")


def run_version(call: Call) -> int:
    """Print all versions."""
    from usercontainerd.engine.host.components import find_components

    described = describe_versions(os.uname().machine, find_components(call.paths.runtime_root))
    text = call.options.value("format")
    if text is None:
        write_output(render_versions(described))
    elif text == "json":
        from usercontainerd.cli.json_text import dump_json

        write_output(dump_json(described, indent=4) + "\n")
    else:
        from usercontainerd.cli.listing import render_format

        # As podman and docker do, .Version alone is the client's.
        write_output(render_format(text, [{**described["Client"], **described}], {}))
    return 0


def describe_versions(machine: str, components: list[Component]) -> dict[str, Any]:
    """All fields, with podman's and docker's names where they have the same. Pure."""
    from usercontainerd.oci.platform import plan_host_platform

    architecture = plan_host_platform(machine).architecture
    return {
        "Client": {
            "Version": __version__,
            "APIVersion": INTERFACE.lstrip("abcdefghijklmnopqrstuvwxyz."),
            "Os": "linux",
            "Arch": architecture,
            "OsArch": f"linux/{architecture}",
        },
        "Components": [
            {"Name": each.name, "Version": each.version, "Path": each.path} for each in components
        ],
    }


def render_versions(described: dict[str, Any]) -> str:
    """One line each. Pure."""
    client = described["Client"]
    lines = [
        ("Client", "usercontainer"),
        ("Version", client["Version"]),
        ("API Version", f"{client['APIVersion']} ({INTERFACE})"),
        ("OS/Arch", client["OsArch"]),
        *((each["Name"], each["Version"] or "unknown") for each in described["Components"]),
    ]
    return "".join(f"{name + ':':<14} {printable(value)}\n" for name, value in lines)


VERBS = {"version": (VERSION, run_version)}
