"""Rank 4: the systemd user generator."""
