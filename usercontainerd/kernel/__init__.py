"""Rank 1: the kernel: namespaces, ID maps, mounts, cgroups, file descriptors, atomic files, spawning."""
