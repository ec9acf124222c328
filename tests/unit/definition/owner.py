"""The user of all tests of definitions."""

from __future__ import annotations

from usercontainerd.definition.specifiers import Owner

OWNER = Owner(home="/home/alice", runtime_root="/run/user/1000", user_name="alice", uid=1000)
DIRECTORY = "/home/alice/.config/usercontainerd/containers"
