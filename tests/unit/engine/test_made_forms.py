"""What layers became: kept in the cache, which may hold anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from usercontainerd.base.paths import Paths
from usercontainerd.engine.images.made_forms import MadeForms
from usercontainerd.oci.conversion import ManifestForm
from usercontainerd.oci.digest import compute_digest
from usercontainerd.oci.manifest import Descriptor
from usercontainerd.store.compress import Compression

LAYER, BLOB = compute_digest(b"layer"), compute_digest(b"blob")
MADE = Descriptor("application/vnd.oci.image.layer.v1.tar+gzip", BLOB, 7)


@pytest.fixture
def made(tmp_path: Path) -> MadeForms:
    environment = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    return MadeForms(Paths.from_environment(environment, 1000))


def test_each_way_is_its_own(made: MadeForms) -> None:
    assert made.find(LAYER, Compression.GZIP, None, ManifestForm.OCI) is None
    made.remember(LAYER, Compression.GZIP, None, ManifestForm.OCI, made=MADE)
    assert made.find(LAYER, Compression.GZIP, None, ManifestForm.OCI) == MADE
    assert made.find(LAYER, Compression.GZIP, 9, ManifestForm.OCI) is None
    assert made.find(LAYER, Compression.ZSTD, None, ManifestForm.OCI) is None
    assert made.find(LAYER, Compression.GZIP, None, ManifestForm.DOCKER) is None
    assert made.find(BLOB, Compression.GZIP, None, ManifestForm.OCI) is None


@pytest.mark.parametrize(
    "content",
    [b"", b"nonsense", b"{}", b'{"media_type": "x", "digest": "sha256:../x", "size": 1}', b"x" * 10_000],
)
def test_garbage_is_nothing(made: MadeForms, tmp_path: Path, content: bytes) -> None:
    made.remember(LAYER, Compression.GZIP, None, ManifestForm.OCI, made=MADE)
    (file,) = (tmp_path / "cache" / "usercontainerd" / "made-layers").iterdir()
    file.write_bytes(content)
    assert made.find(LAYER, Compression.GZIP, None, ManifestForm.OCI) is None


def test_a_cache_that_cannot_be_written_is_no_failure(made: MadeForms, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    made.remember(LAYER, Compression.GZIP, None, ManifestForm.OCI, made=MADE)
