"""Digests: of what is small without OpenSSL, and the same."""

from __future__ import annotations

import hashlib

import pytest

from usercontainerd.oci import digest


@pytest.mark.parametrize("size", [0, 1, digest._SMALL - 1, digest._SMALL, digest._SMALL + 1, 1_000_000])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_digests_are_those_of_hashlib(algorithm: str, size: int) -> None:
    data = (b"0123456789abcde" * (size // 15 + 1))[:size]
    expected = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
    assert digest.compute_digest(data, algorithm) == expected
