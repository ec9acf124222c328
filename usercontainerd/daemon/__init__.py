"""Rank 4: the D-Bus door. Started by the bus on the first call, gone when idle; owns no container and no truth."""
