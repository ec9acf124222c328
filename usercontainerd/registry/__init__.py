"""Rank 2: talking to registries."""
