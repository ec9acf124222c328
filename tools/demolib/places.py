"""Where the demo runs: in a private machine of namespaces, in one with a kernel of its own, or in this session."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
MACHINE = [sys.executable, f"{TOP}/tools/machine"]


@dataclass(frozen=True)
class Result:
    """What a command printed and how it ended."""

    status: int
    output: str


def run_script(command: list[str], script: str) -> Result:
    """Run a shell script through ``command``; standard error is part of the output."""
    done = subprocess.run(
        [*command, "sh", "-c", f"exec 2>&1\n{script}"],
        stdout=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )
    return Result(done.returncode, done.stdout)


class PrivateMachine:
    """A running machine of the native lane, entered as alice."""

    title = "a private machine: its own systemd as PID 1, and a user, alice, without any privilege"

    def __init__(self, name: str) -> None:
        self.name = name

    def boot(self) -> bool:
        """Start the machine anew; False if this host refuses namespaces."""
        self.stop()
        return (
            subprocess.run([*MACHINE, "boot", "--name", self.name, "--registry"], check=False).returncode == 0
        )

    def stop(self) -> None:
        """End the machine and all that is in it, if it runs."""
        subprocess.run([*MACHINE, "stop", "--name", self.name], check=False, capture_output=True)

    def run(self, script: str) -> Result:
        """Run a script as alice."""
        return run_script([*MACHINE, "run", "--name", self.name, "--user", "alice", "--"], script)

    def describe_end(self, *, keep: bool) -> str:
        """How to go on from here."""
        clean = "Remove the cached root file systems as well:         tools/machine clean --all"
        if not keep:
            return f"The machine is gone. Keep it, to look around in it:  ./demo --keep\n{clean}"
        return (
            f"The machine still runs. Look around in it as alice:  tools/machine shell --name {self.name}\n"
            f"Remove it and everything in it:                      tools/machine stop --name {self.name}\n{clean}"
        )


class KernelMachine:
    """A machine of the kernel lane: one script, then it is gone. Needs no privilege and no namespaces."""

    title = "a machine with a Linux kernel of its own (user-mode Linux): nothing of this host is needed"

    def run(self, script: str) -> Result:
        """Boot, run the script as alice, and power off."""
        return run_script([*MACHINE, "run", "--kernel", "--registry", "--user", "alice", "--"], script)


class Session:
    """The systemd user session that this runs in; its own directories, all of it removed at the end."""

    title = "your own systemd session"

    def run(self, script: str) -> Result:
        """Run a script as the user that we are."""
        return run_script([], script)


def has_user_session() -> bool:
    """Tell whether this process belongs to a user with a systemd manager of its own."""
    if os.geteuid() == 0:
        return False
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    return os.path.exists(f"{runtime}/systemd/private")
