"""Describes a tree in JSON: types, modes, owners, times, attributes, contents, and which names are one file.

A program of its own, for it has to run as root of a user namespace: ``python3 snapshot.py DIRECTORY``.
"""

import hashlib
import json
import os
import stat
import sys


def describe(root: bytes) -> dict[str, dict[str, object]]:
    """Describe everything below ``root`` by path; the root itself is ``.``."""
    tree: dict[str, dict[str, object]] = {}
    first: dict[int, str] = {}
    pending = [b"."]
    while pending:
        path = pending.pop(0)
        full = os.path.join(root, path)
        status = os.lstat(full)
        name = os.fsdecode(path)
        entry: dict[str, object] = {
            "kind": stat.filemode(status.st_mode)[0],
            "mode": oct(stat.S_IMODE(status.st_mode)),
            "owner": [status.st_uid, status.st_gid],
            "time": status.st_mtime_ns,
            "device": status.st_rdev,
        }
        if stat.S_ISLNK(status.st_mode):
            entry["target"] = os.fsdecode(os.readlink(full))
        elif stat.S_ISREG(status.st_mode):
            with open(full, "rb") as file:
                entry["content"] = hashlib.sha256(file.read()).hexdigest()
            entry["size"] = status.st_size
        if not stat.S_ISDIR(status.st_mode) and status.st_nlink > 1:
            entry["same as"] = first.setdefault(status.st_ino, name)
        entry["attributes"] = {
            key: os.getxattr(full, key, follow_symlinks=False).hex()
            for key in sorted(os.listxattr(full, follow_symlinks=False))
            if not key.startswith("user.overlay.")
        }
        tree[name] = entry
        if stat.S_ISDIR(status.st_mode):
            pending += [os.path.normpath(os.path.join(path, child)) for child in sorted(os.listdir(full))]
    return tree


if __name__ == "__main__":
    json.dump(describe(os.fsencode(sys.argv[1])), sys.stdout)
