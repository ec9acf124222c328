"""Rank 2: what lies on disk: blobs, layers, images, containers."""
