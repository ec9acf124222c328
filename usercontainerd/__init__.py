"""Containers as ordinary supervised services of a user's own systemd."""

__version__ = "0.1.0"
