"""Containers: made, prepared, started, watched, changed and removed."""
