"""Rank 1: the OCI formats: reference, digest, manifest, runtime specification. No I/O."""
