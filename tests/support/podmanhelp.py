"""What Podman has: its verbs and their options, as its own help tells."""

from __future__ import annotations

import re

from tests.support.containers import run

_VERB = re.compile(r"^  ([a-z][a-z-]*) {2,}\S", re.MULTILINE)
_OPTION = re.compile(r"^ +(?:-\w, )?(--[a-z][a-z0-9-]*)", re.MULTILINE)


def read_version() -> tuple[int, ...]:
    """Return the version of the Podman that is here, as ``(5, 4)``."""
    major, minor = run("podman", "version", "--format", "{{.Client.Version}}").stdout.split(".")[:2]
    return int(major), int(minor)


def read_help(*verb: str) -> tuple[list[str], set[str]]:
    """Return the verbs below ``verb``, and its options but ``--help``; an alias is no verb of its own."""
    text = run("podman", *verb, "--help", check=False).stdout  # compose fails where there is none
    head, _, options = text.partition("\nOptions:\n")
    _, _, verbs = head.partition("\nAvailable Commands:\n")
    return _VERB.findall(verbs), set(_OPTION.findall(options)) - {"--help"}


def read_verbs() -> dict[str, set[str]]:
    """Return all verbs, those of groups as two words (or three), each with its options."""
    found = {}
    groups: list[tuple[str, ...]] = [()]
    while groups:
        group = groups.pop()
        for name in read_help(*group)[0]:
            verb = (*group, name)
            below, options = read_help(*verb)
            if below:
                groups.append(verb)
            else:
                found[" ".join(verb)] = options
    return found
