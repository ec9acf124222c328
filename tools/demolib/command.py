"""The command line of ``./demo``."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time

from demolib.places import TOP, KernelMachine, PrivateMachine, Session, has_user_session
from demolib.story import StepFailed, Story, tell_main_story, tell_memory_story

NAME = "demo"
SESSION_IMAGE = "docker.io/library/busybox:latest"


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./demo",
        description="Run a container as a supervised service of a user's systemd: in a private machine as root, in "
        "your own session as a user of a desktop. Nothing of this host is changed.",
    )
    parser.add_argument(
        "--session", action="store_true", help="in this systemd user session, whoever you are"
    )
    parser.add_argument("--kernel", action="store_true", help="in a machine with a kernel of its own")
    parser.add_argument(
        "--image", default=SESSION_IMAGE, help="in a session: an image with busybox (%(default)s)"
    )
    parser.add_argument("--port", type=int, default=8080, help="the port to publish (%(default)s)")
    return parser.parse_args(arguments)


def _demo_in_machine(port: int) -> bool:
    machine = PrivateMachine(NAME)
    story = Story(machine)
    print(f"The demo runs in {machine.title}.", flush=True)
    if not machine.boot():
        print("This host refuses namespaces; going on with a kernel of its own.", flush=True)
        return _demo_in_kernel(port)
    tell_main_story(
        story,
        name="app",
        image="localhost:5000/web:latest",
        port=port,
        more="",
        setup="systemctl --user daemon-reload",
    )
    print(
        "\nMemory limits need the kernel's memory controller; the next step takes a kernel of its own for it."
    )
    kernel = Story(KernelMachine())
    kernel.number = story.number
    tell_memory_story(kernel)
    print(f"\n{machine.describe_end()}")
    return True


def _demo_in_kernel(port: int) -> bool:
    """Everything in one script: a machine of the kernel lane lives only as long as that."""
    machine = KernelMachine()
    print(f"The demo runs in {machine.title}.", flush=True)
    script = f"exec python3 -B /checkout/demo --session --image localhost:5000/busybox:latest --port {port}"
    result = machine.run(script)
    print(result.output)
    if result.status == 0:
        tell_memory_story(Story(machine))
    return result.status == 0


def _demo_in_session(image: str, port: int) -> bool:
    """Own directories for the definition's data; the unit is a runtime one. All of it goes at the end."""
    session = Session()
    story = Story(session)
    name = "usercontainerd-demo"
    unit = f"container@{name}.service"
    work = tempfile.mkdtemp(prefix="usercontainerd-demo-")
    page = f"{work}/www"
    os.mkdir(page)
    with open(f"{page}/index.html", "w", encoding="utf-8") as file:
        file.write("It works: hello from usercontainerd\n")
    more = (
        'command = ["sh", "-c", "trap \'exit 0\' TERM; httpd -f -p 8080 -h /www & wait"]\n'
        f'mounts = ["{page}:/www:ro"]\n'
    )
    print(f"The demo runs in {session.title}.", flush=True)
    try:
        setup = f"{TOP}/libexec/renew-unit {name}\nsystemctl --user daemon-reload"
        tell_main_story(story, name=name, image=image, port=port, more=more, setup=setup)
    finally:
        session.run(
            f"systemctl --user stop {unit}; systemctl --user reset-failed {unit}\n"
            f"rm -f ~/.config/usercontainerd/containers/{name}.toml\n"
            f'rm -rf "$XDG_RUNTIME_DIR/systemd/user/{unit}" "$XDG_RUNTIME_DIR/usercontainerd/containers/{name}"\n'
            "systemctl --user daemon-reload"
        )
        shutil.rmtree(work, ignore_errors=True)
    print(f"\nThe unit and the definition are gone again; the image stays: `bin/usercontainer rmi {image}`.")
    return True


def main(arguments: list[str]) -> int:
    """Choose the place and tell the story."""
    options = _parse(arguments)
    started = time.monotonic()
    try:
        if options.kernel:
            good = _demo_in_kernel(options.port)
        elif options.session or has_user_session():
            good = _demo_in_session(options.image, options.port)
        else:
            good = _demo_in_machine(options.port)
    except StepFailed as failure:
        print(f"\ndemo: {failure}")
        return 1
    print(f"\n{'Done' if good else 'It did not work'} ({time.monotonic() - started:.0f} s).")
    return 0 if good else 1
