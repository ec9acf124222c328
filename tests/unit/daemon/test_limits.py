"""The limits as such: who holds how many, which ended jobs go, how many descriptors the daemon may have."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from usercontainerd.daemon.limits import Holdings, choose_surplus


def test_holdings() -> None:
    held = Holdings("cups", 2, 3)
    held.take("ann")
    held.take("ann")
    assert held.find_excess("ann") == "more than 2 cups of one client"
    assert held.find_excess("bob") == ""
    assert held.find_excess("bob", 2) == "more than 3 cups"
    held.take("bob")
    assert held.find_excess("eve") == "more than 3 cups"
    assert held.find_excess("eve", 0) == ""
    held.give_back("ann", 2)
    assert held.total == 1
    assert held.find_excess("ann", 2) == ""


@pytest.mark.parametrize(
    ("owners", "gone"),
    [
        ("", ""),
        ("1a 2a", ""),
        ("1a 2a 3a", "1"),
        ("1b 2a 3a 4a", "2"),  # one who makes many drives out none of another's
        ("1a 2b 3c 4d", "1"),
        ("1a 2b 3c 4a 5a 6a", "124"),
    ],
)
def test_surplus(owners: str, gone: str) -> None:
    """Two of one, three in all."""
    known = [(word[0], word[1]) for word in owners.split()]
    assert choose_surplus(known, 2, 3) == list(gone)


@pytest.mark.parametrize(("before", "after"), [((100, 200), 200), ((100, 9000), 4096), ((5000, 9000), 5000)])
def test_more_descriptors(before: tuple[int, int], after: int) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < before[1]:
        pytest.skip("the hard limit here is too low")
    code = (
        "import resource, sys\n"
        "from usercontainerd.daemon.limits import raise_fd_limit\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, {before})\n"
        f"assert raise_fd_limit() == {before}\n"
        "print(*resource.getrlimit(resource.RLIMIT_NOFILE))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(after), str(before[1])]
