"""Rank 2: whether an image may be taken in: signature policy, signatures, keys. Works on bytes that it is handed."""
