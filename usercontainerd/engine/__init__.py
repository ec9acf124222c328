"""Rank 3: the use cases: pull, create, start, exec, remove: plain blocking functions."""
