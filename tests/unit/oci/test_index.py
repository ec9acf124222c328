"""Indexes: nothing is lost on the way, the bytes are those that others write, and equal indexes are equal."""

from __future__ import annotations

import json

import pytest

from usercontainerd.base.errors import InvalidFormat
from usercontainerd.oci.digest import compute_digest
from usercontainerd.oci.index import (
    ImageIndex,
    Instance,
    PlatformDetails,
    parse_index,
    read_platform_of_configuration,
    render_docker_list,
    render_index,
    render_internal,
)
from usercontainerd.oci.manifest import DOCKER_MANIFEST, OCI_MANIFEST

A, B = compute_digest(b"a"), compute_digest(b"b")
ARM = PlatformDetails("arm", "linux", os_version="5", variant="v7", features=("f1",), os_features=("x",))
FULL = ImageIndex(
    (Instance(OCI_MANIFEST, A, 405, ARM, annotations=(("b", "2"), ("a", "1"))), Instance(OCI_MANIFEST, B, 7)),
    annotations=(("top", "1"),),
    subject=Instance(OCI_MANIFEST, B, 7),
)


def test_bytes_are_those_of_podman() -> None:
    # As `podman manifest push` sends it.
    assert render_index(FULL).decode() == (
        '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":['
        f'{{"mediaType":"{OCI_MANIFEST}","digest":"{A}","size":405,"annotations":{{"a":"1","b":"2"}},'
        '"platform":{"architecture":"arm","os":"linux","os.version":"5","os.features":["x"],"variant":"v7"}},'
        f'{{"mediaType":"{OCI_MANIFEST}","digest":"{B}","size":7}}],'
        f'"subject":{{"mediaType":"{OCI_MANIFEST}","digest":"{B}","size":7}},"annotations":{{"top":"1"}}}}'
    )


def test_round_trips() -> None:
    again = parse_index(json.dumps(render_internal(FULL)).encode())
    assert render_index(again) == render_index(FULL)
    assert again.instances[0].platform == ARM
    # What is pushed has no features: OCI reserves them.
    assert parse_index(render_index(FULL)).instances[0].platform.features == ()
    assert render_index(parse_index(render_index(ImageIndex()))) == render_index(ImageIndex())


def test_docker_list() -> None:
    index = ImageIndex((Instance(DOCKER_MANIFEST, A, 3, ARM),))
    assert json.loads(render_docker_list(index))["manifests"] == [
        {
            "mediaType": DOCKER_MANIFEST,
            "size": 3,
            "digest": A,
            "platform": {
                "architecture": "arm",
                "os": "linux",
                "os.version": "5",
                "os.features": ["x"],
                "variant": "v7",
                "features": ["f1"],
            },
        }
    ]
    with pytest.raises(InvalidFormat, match=r"Docker's list cannot hold"):
        render_docker_list(FULL)


def test_an_image_is_in_it_once() -> None:
    index = (
        ImageIndex().with_instance(Instance(OCI_MANIFEST, A, 1)).with_instance(Instance(OCI_MANIFEST, B, 2))
    )
    index = index.with_instance(Instance(OCI_MANIFEST, A, 1, ARM))
    assert [each.digest for each in index.instances] == [A, B]
    assert index.instances[0].platform == ARM
    assert [each.digest for each in index.without(A).instances] == [B]
    assert index.find(compute_digest(b"c")) is None


def test_platform_of_a_configuration() -> None:
    data = json.dumps({"architecture": "arm64", "os": "linux", "variant": "v8", "os.version": "10"}).encode()
    assert read_platform_of_configuration(data) == PlatformDetails(
        "arm64", "linux", os_version="10", variant="v8"
    )


@pytest.mark.parametrize("text", ["[]", '{"manifests": [{"digest": "sha256:x"}]}', '{"manifests": {}}'])
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(InvalidFormat):
        parse_index(text.encode())
