"""Where a push goes, and how layers are to be compressed: pure."""

from __future__ import annotations

import pytest

from usercontainerd.base.errors import InvalidArgument, InvalidReference
from usercontainerd.engine.transfers.push_layers import LayerWishes
from usercontainerd.engine.transfers.pushing import PushOptions, plan_destination, plan_wishes
from usercontainerd.oci.conversion import ManifestForm
from usercontainerd.oci.digest import compute_digest
from usercontainerd.oci.manifest import Descriptor
from usercontainerd.store.compress import Compression
from usercontainerd.store.records import NameRecord

DIGEST = compute_digest(b"")
NAME = NameRecord("quay.io/me/app:1", DIGEST, ())
GZIP = Descriptor("application/vnd.oci.image.layer.v1.tar+gzip", DIGEST, 1)
ZSTD = Descriptor("application/vnd.oci.image.layer.v1.tar+zstd", DIGEST, 1)
PLAIN = Descriptor("application/vnd.oci.image.layer.v1.tar", DIGEST, 1)


@pytest.mark.parametrize(
    ("destination", "target"),
    [
        (None, "quay.io/me/app:1"),
        ("app", "docker.io/library/app:latest"),
        ("me/app:2", "docker.io/me/app:2"),
        ("docker://quay.io/x/y", "quay.io/x/y:latest"),
        ("localhost:5000/x", "localhost:5000/x:latest"),
        (f"quay.io/x/y@{DIGEST}", f"quay.io/x/y@{DIGEST}"),
    ],
)
def test_destination(destination: str | None, target: str) -> None:
    assert str(plan_destination("app", NAME, destination)) == target


@pytest.mark.parametrize(
    ("destination", "message"),
    [
        ("dir:/tmp/x", "not to dir:"),
        ("oci-archive:x.tar", "not to oci-archive:"),
        ("https://quay.io/x", "not a name in a registry"),
        (f"quay.io/x/y:1@{DIGEST}", "a tag and a digest"),
        ("quay.io/UPPER", "lower case"),
    ],
)
def test_no_destination(destination: str, message: str) -> None:
    with pytest.raises((InvalidArgument, InvalidReference), match=message):
        plan_destination("app", NAME, destination)


def test_an_id_says_nothing_of_where_to() -> None:
    with pytest.raises(InvalidArgument, match="does not say where"):
        plan_destination("0123456789ab", None, None)


def test_wishes() -> None:
    form, wishes = plan_wishes(ManifestForm.OCI, PushOptions())
    assert form is ManifestForm.OCI
    assert all(map(wishes.accepts, (GZIP, ZSTD, PLAIN)))
    assert [wishes.choose(each) for each in (GZIP, ZSTD, PLAIN)] == ["gzip", "zstd", "none"]
    form, wishes = plan_wishes(ManifestForm.DOCKER, PushOptions(compression=Compression.ZSTD))
    assert form is ManifestForm.OCI
    assert wishes.accepts(ZSTD)
    assert not wishes.accepts(GZIP)
    _, wishes = plan_wishes(ManifestForm.OCI, PushOptions(level=9))
    assert not wishes.accepts(GZIP)
    assert wishes.choose(ZSTD) is Compression.GZIP
    with pytest.raises(InvalidArgument, match="zstd"):
        plan_wishes(ManifestForm.OCI, PushOptions(ManifestForm.DOCKER, Compression.ZSTD))


def test_docker_has_no_zstd() -> None:
    wishes = LayerWishes(ManifestForm.DOCKER)
    assert not wishes.accepts(ZSTD)
    assert wishes.choose(ZSTD) is Compression.GZIP
