"""Rank 2: a container's network: plans, pasta, resolv.conf and hosts."""
