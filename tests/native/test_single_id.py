"""A container with one ID only: root is the user, and nobody else is there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.support.containers import Container
from tests.support.fakeregistry import file
from tests.support.images import ImageMaker
from tests.support.probes import probe_ours

Make = Callable[..., Container]

SINGLE = 'security.user_namespace = "single"\n'


def test_root_is_the_user_and_alone(tmp_path: Path) -> None:
    found = probe_ours("facts", output=tmp_path / "out", toml=f'network = "none"\n{SINGLE}')
    assert found["uid_map"] == ["0", str(os.getuid()), "1"]
    assert found["gid_map"] == ["0", str(os.getgid()), "1"]
    # Nobody may call setgroups(2) then: the user's own groups stay, as those that the namespace has no name for.
    assert found["setgroups"] == "deny"
    assert set(found["status"]["Groups"].split()) <= {"0", "65534"}
    assert found["status"]["Seccomp"] == "2"
    assert found["environment"]["HOME"] == "/root"


def test_pasta_and_exec_work(container: Make, tmp_path: Path) -> None:
    found = probe_ours("network", "{}", output=tmp_path / "out", toml=SINGLE)
    assert found["interfaces"] == ["lo", "uplink0"]
    assert found["ping"] == "answered"


def test_other_users_are_refused(container: Make, images: ImageMaker) -> None:
    """With what to do about it."""
    for more in ('user = "1000"\n', 'group = "5"\n'):
        one = container(f'image = "{images.add("plain")}"\nnetwork = "none"\n{more}{SINGLE}')
        assert one.start(check=False).returncode != 0
        assert 'user_namespace = "single"' in one.show("StatusText")


def test_files_and_groups_of_others_do_not_matter(
    container: Make, images: ImageMaker, tmp_path: Path
) -> None:
    """A file that is not root's is nobody's; that root is in further groups (as in Alpine's images) is no obstacle."""
    output = tmp_path / "out"
    output.mkdir()
    image = images.add(
        "groups", file("x", b"", uid=1000, gid=1000), file("etc/group", b"root:x:0:root\ndisk:x:6:root\n")
    )
    command = (
        'command = ["sh", "-c", "stat -c %%u:%%g /x > /out/owner; cat /proc/self/status > /out/status"]\n'
    )
    for user in ("", 'user = "root"\n'):
        one = container(
            f'image = "{image}"\n{command}network = "none"\nmounts = ["{output}:/out"]\n{user}{SINGLE}'
        )
        one.start()
        one.finish()
        assert (output / "owner").read_text() == "65534:65534\n"
