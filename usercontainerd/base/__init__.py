"""Rank 0: errors, XDG paths, names, sizes and times, typed JSON access, unit-file text. Pure."""
