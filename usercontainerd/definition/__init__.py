"""Rank 1: a container's definition: its TOML text and the frozen ``Definition`` that it means."""
