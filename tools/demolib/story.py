"""The story: each step is a command that a user would type, what it printed, and what that shows."""

from __future__ import annotations

import sys
import time

from demolib.places import KernelMachine, PrivateMachine, Result, Session

Place = PrivateMachine | KernelMachine | Session

DEFINITION = """\
description = "The demo's web server"
image = "{image}"
ports = ["127.0.0.1:{port}:8080"]
restart = "on-failure"
{more}
[resources]
memory = "64M"
pids = 50
"""

HOG = """\
image = "localhost:5000/busybox:latest"
command = ["sh", "-c", "head -c 64m /dev/zero | tail"]
network = "none"

[resources]
memory = "32M"
"""


class StepFailed(Exception):
    """A step did not show what it should."""


class Story:
    """Tells the steps one after the other and stops at the first that fails."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.number = 0
        self.bold, self.dim, self.plain = (
            ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "")
        )

    def say(self, text: str) -> None:
        """A heading."""
        self.number += 1
        print(f"\n{self.bold}{self.number}. {text}{self.plain}", flush=True)

    def do(self, script: str, *, expect: str = "", quiet: bool = False, tries: int = 1) -> str:
        """Show and run a script; ``expect`` must be in what it prints."""
        if not quiet:
            for line in script.strip().splitlines():
                print(f"   {self.dim}${self.plain} {line}", flush=True)
        result = Result(1, "")
        for attempt in range(tries):
            if attempt:
                time.sleep(0.3)
            result = self.place.run(script)
            if result.status == 0 and expect in result.output:
                break
        else:
            self.show(result.output)
            raise StepFailed(f"expected {expect!r} and status 0, got status {result.status}: {script}")
        if not quiet:
            self.show(result.output)
        return result.output

    def show(self, output: str) -> None:
        """Print what a command printed, indented."""
        for line in output.rstrip().splitlines():
            print(f"     {line}", flush=True)


def tell_main_story(
    story: Story,
    *,
    name: str,
    image: str,
    port: int,
    more: str = "",
    directory: str = "~/.config/usercontainerd/containers",
    setup: str = "systemctl --user daemon-reload",
) -> None:
    """From a file of a few lines to a supervised service that answers, heals itself and logs.

    ``setup`` makes systemd see the definition in ``directory``; ``more`` are further lines of it.
    """
    unit = f"container@{name}.service"
    definition = DEFINITION.format(image=image, port=port, more=more)
    story.say("A container is a file of a few lines")
    story.do(f"mkdir -p {directory}\ncat > {directory}/{name}.toml <<'END'\n{definition}END")
    story.say("systemd's generator makes a unit of it, which reads as if a person wrote it")
    story.do(f"{setup}\nsystemctl --user cat {unit}", expect="[Service]")
    story.say(
        "Start it: the image is pulled from the registry, verified and unpacked; then it simply is a service"
    )
    story.do(
        f"systemctl --user start {unit}\nsystemctl --user --no-pager status {unit}", expect="active (running)"
    )
    story.say("Its page, through the published port")
    story.do(f"curl -sS http://127.0.0.1:{port}/", expect="It works", tries=10)
    story.say(
        "The unit's main process is the container's own init, mapped to subordinate IDs; no monitor beside it"
    )
    story.do(
        f"systemctl --user show -p MainPID -p ControlGroup {unit}\n"
        f"cat /proc/$(systemctl --user show --value -p MainPID {unit})/uid_map",
        expect="100000",
    )
    story.say("kill -9: systemd notices and starts it again")
    story.do(
        f"kill -9 $(systemctl --user show --value -p MainPID {unit})\n"
        f"for try in $(seq 40); do sleep 0.5; systemctl --user is-active --quiet {unit} && break; done\n"
        f"systemctl --user show -p ActiveState -p NRestarts {unit}",
        expect="NRestarts=1",
    )
    story.do(f"curl -sS http://127.0.0.1:{port}/", expect="It works", tries=10)
    story.say("Its log is the journal")
    story.do(f"journalctl --user --no-pager -o short -n 6 -u {unit}", expect="Started")


def tell_memory_story(story: Story) -> None:
    """A limit in the definition, and what happens to who ignores it."""
    story.say("Held to its memory: 32M allowed, 64M eaten")
    story.do(
        "mkdir -p ~/.config/usercontainerd/containers\n"
        f"cat > ~/.config/usercontainerd/containers/hog.toml <<'END'\n{HOG}END\n"
        "systemctl --user daemon-reload\n"
        "systemctl --user start container@hog\n"
        "for try in $(seq 40); do sleep 0.5; systemctl --user is-active --quiet container@hog || break; done\n"
        "systemctl --user show -p MemoryMax -p Result container@hog",
        expect="Result=oom-kill",
    )
