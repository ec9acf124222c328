"""``--change``: instructions of a Containerfile."""

from __future__ import annotations

import json
from typing import Any

import pytest

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.engine.archives.importing import build_configuration
from usercontainerd.engine.images.instructions import apply_changes
from usercontainerd.oci.digest import compute_digest
from usercontainerd.oci.image import parse_image_configuration
from usercontainerd.oci.platform import Platform


@pytest.mark.parametrize(
    ("changes", "config"),
    [
        (['CMD ["a", "b c"]'], {"Cmd": ["a", "b c"]}),
        (["CMD a b"], {"Cmd": ["/bin/sh", "-c", "a b"]}),
        (["cmd=a"], {"Cmd": ["/bin/sh", "-c", "a"]}),
        (["CMD [not json"], {"Cmd": ["/bin/sh", "-c", "[not json"]}),
        (["CMD a", "CMD"], {"Cmd": []}),
        (['ENTRYPOINT ["/x"]'], {"Entrypoint": ["/x"]}),
        (["ENV A=b C='d e'", "ENV A=2"], {"Env": ["C=d e", "A=2"]}),
        (["ENV A b c=d"], {"Env": ["A=b c=d"]}),
        (["ENV A"], {"Env": ["A="]}),
        (
            ["EXPOSE 80 81/UDP", "EXPOSE=90-92"],
            {"ExposedPorts": {"80/tcp": {}, "81/udp": {}, "90-92/tcp": {}}},
        ),
        (['LABEL a=b c="d e"', "LABEL a=x"], {"Labels": {"a": "x", "c": "d e"}}),
        (["STOPSIGNAL SIGINT"], {"StopSignal": "SIGINT"}),
        (["STOPSIGNAL 9"], {"StopSignal": "9"}),
        (["USER 5:6"], {"User": "5:6"}),
        (['VOLUME ["/a", "/b"]', "VOLUME /c /d"], {"Volumes": {"/a": {}, "/b": {}, "/c": {}, "/d": {}}}),
        (["WORKDIR /x"], {"WorkingDir": "/x"}),
        (["WORKDIR x"], {"WorkingDir": "/x"}),
        (["ONBUILD RUN x", "ONBUILD ENV A=b"], {"OnBuild": ["RUN x", "ENV A=b"]}),
        ([], {}),
    ],
)
def test_instructions(changes: list[str], config: dict[str, Any]) -> None:
    assert apply_changes(changes) == config


def test_of_a_former_configuration() -> None:
    former = {"Cmd": ["old"], "Env": ["A=1", "B=2"], "Labels": None, "WorkingDir": "/srv", "Other": [1]}
    changed = apply_changes(["ENV A=3", "LABEL x=y", "WORKDIR sub"], former)
    assert changed == {
        "Cmd": ["old"],
        "Env": ["B=2", "A=3"],
        "Labels": {"x": "y"},
        "WorkingDir": "/srv/sub",
        "Other": [1],
    }
    assert former["Env"] == ["A=1", "B=2"]
    assert "Cmd" not in apply_changes(["ENTRYPOINT /new"], former)
    assert apply_changes(["CMD new", "ENTRYPOINT /new"], former)["Cmd"] == ["/bin/sh", "-c", "new"]


@pytest.mark.parametrize(
    "change",
    [
        "RUN x",
        "",
        "ENV",
        "ENV =x",
        "ENV A=b C",
        "ENV A='b",
        "LABEL",
        "EXPOSE",
        "EXPOSE x",
        "EXPOSE 0",
        "EXPOSE 80/icmp",
        "EXPOSE 70000",
        "STOPSIGNAL",
        "STOPSIGNAL nope",
        "USER",
        "USER a b",
        "VOLUME",
        "ONBUILD",
    ],
)
def test_refused(change: str) -> None:
    with pytest.raises(InvalidArgument, match="--change"):
        apply_changes([change])


def test_configuration() -> None:
    diff_id = compute_digest(b"layer")
    data = build_configuration(
        diff_id,
        apply_changes(["CMD sh", "ENV A=\u00e4"]),
        created="2026-01-01T00:00:00Z",
        platform=Platform("linux", "arm64", "v8"),
        message="by hand",
    )
    parsed = parse_image_configuration(data)
    assert parsed.platform == Platform("linux", "arm64", "v8")
    assert parsed.diff_ids == (diff_id,)
    assert parsed.environment == (("A", "\u00e4"),)
    assert (parsed.history[0].comment, parsed.created) == ("by hand", "2026-01-01T00:00:00Z")
    assert "variant" not in json.loads(
        build_configuration(diff_id, {}, created="", platform=Platform("linux", "amd64"), message="")
    )
