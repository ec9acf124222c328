"""The directives that we know against those that this systemd knows."""

from __future__ import annotations

import subprocess

from usercontainerd.definition.directive_names import SECTIONS
from usercontainerd.definition.directives import REFUSED

FEW = (
    40  # A release brings some and takes some; what is too new for our list is passed through with a warning.
)


def read_known() -> dict[str, set[str]]:
    """Section to directives, as ``systemd --dump-configuration-items`` prints them."""
    done = subprocess.run(
        ["/usr/lib/systemd/systemd", "--user", "--dump-configuration-items"],
        capture_output=True,
        text=True,
        check=True,
    )
    known: dict[str, set[str]] = {}
    section = ""
    for line in done.stdout.splitlines():
        if line.startswith("["):
            section = line.strip("[]").lower()
        elif "=" in line:
            known.setdefault(section, set()).add(line.partition("=")[0])
    return known


def test_this_systemd_has_much_the_same_directives() -> None:
    known = read_known()
    for section, names in SECTIONS.items():
        assert len(known[section] - names) < FEW
        assert len(names - known[section]) < FEW


def test_what_we_refuse_exists() -> None:
    known = read_known()
    assert len(REFUSED.keys() - known["unit"] - known["service"]) < FEW
