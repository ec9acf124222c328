"""What ``inspect`` shows of a definition and its image, as docker's clients read it."""

from __future__ import annotations

import json

import pytest

from usercontainerd.definition.model import Definition
from usercontainerd.engine.containers.inspection import describe_config
from usercontainerd.oci.image import ImageConfiguration
from usercontainerd.oci.platform import Platform

IMAGE = ImageConfiguration(
    Platform("linux", "amd64"),
    (),
    environment=(("A", "image"), ("B", "image")),
    entrypoint=("/entry",),
    command=("serve",),
    user="web",
    labels=(("x", "1"),),
    stop_signal="SIGQUIT",
)


@pytest.mark.parametrize(("seconds", "shown"), [(10.0, "10"), (0.0, "0"), (0.5, "1"), (float("inf"), "-1")])
def test_the_stop_timeout_is_an_integer(seconds: float, shown: str) -> None:
    described = describe_config(Definition("app", "busybox", stop_timeout=seconds), IMAGE)
    assert json.dumps(described["StopTimeout"]) == shown


def test_the_definition_goes_before_the_image() -> None:
    silent = describe_config(Definition("app", "busybox"), IMAGE)
    assert (silent["Cmd"], silent["Entrypoint"], silent["User"]) == (["serve"], ["/entry"], "web")
    assert (silent["StopSignal"], silent["WorkingDir"]) == ("SIGQUIT", "/")
    said = Definition(
        "app",
        "busybox",
        entrypoint=("/own",),
        environment=(("B", "own"),),
        labels=(("x", "2"),),
        user="",
        group="7",
        stop_signal="SIGINT",
    )
    described = describe_config(said, IMAGE)
    # Another entry point has no use for the command of the image's.
    assert (described["Cmd"], described["Entrypoint"]) == (None, ["/own"])
    assert described["Env"] == ["A=image", "B=own"]
    assert described["Labels"] == {"x": "2"}
    assert (described["User"], described["StopSignal"]) == (":7", "SIGINT")
