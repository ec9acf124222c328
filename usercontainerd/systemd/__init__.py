"""Rank 2: definition to unit, systemd's manager, journal, notify."""
