"""Rank 2: bundle, seccomp, crun, the launcher."""
