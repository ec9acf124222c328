"""Rank 4: the command ``usercontainer``."""
