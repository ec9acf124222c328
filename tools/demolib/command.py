"""The command line of ``./demo``."""

from __future__ import annotations

import argparse
import os
import re
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
        "your own session as a user of a desktop. What it started is gone at its end; what it built is cached.",
    )
    parser.add_argument(
        "--session", action="store_true", help="in this systemd user session, whoever you are"
    )
    parser.add_argument("--kernel", action="store_true", help="in a machine with a kernel of its own")
    parser.add_argument(
        "--keep", action="store_true", help="leave the private machine running, to look around"
    )
    parser.add_argument(
        "--image", default=SESSION_IMAGE, help="in a session: an image with busybox (%(default)s)"
    )
    parser.add_argument("--port", type=int, default=8080, help="the port to publish (%(default)s)")
    return parser.parse_args(arguments)


def _demo_in_machine(port: int, *, keep: bool) -> bool:
    machine = PrivateMachine(NAME)
    print(f"The demo runs in {machine.title}.", flush=True)
    if not machine.boot():
        print("This host refuses namespaces; going on with a kernel of its own.", flush=True)
        return _demo_in_kernel(port)
    try:
        _tell_stories(machine, port)
    finally:
        if not keep:
            machine.stop()
    print(f"\n{machine.describe_end(keep=keep)}")
    return True


def _tell_stories(machine: PrivateMachine, port: int) -> None:
    story = Story(machine)
    tell_main_story(story, name="app", image="localhost:5000/web:latest", port=port)
    print(
        "\nMemory limits need the kernel's memory controller; the next step takes a kernel of its own for it."
    )
    kernel = Story(KernelMachine())
    kernel.number = story.number
    tell_memory_story(kernel)


def _demo_in_kernel(port: int) -> bool:
    """Everything in one script: a machine of the kernel lane lives only as long as that."""
    machine = KernelMachine()
    print(f"The demo runs in {machine.title}.", flush=True)
    script = f"exec /checkout/demo --session --image localhost:5000/busybox:latest --port {port}"
    result = machine.run(script)
    print(result.output)
    if result.status == 0:
        story = Story(machine)
        story.number = len(re.findall(r"^\d+\. ", result.output, re.MULTILINE))
        tell_memory_story(story)
    return result.status == 0


def _demo_in_session(image: str, port: int) -> bool:
    """Everything in directories of its own; only the unit is where systemd sees it, until the end."""
    session = Session()
    story = Story(session)
    name = "usercontainerd-demo"
    unit = f"container@{name}.service"
    work = tempfile.mkdtemp(prefix="usercontainerd-demo-")
    images = f"{os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')}/usercontainerd/demo"
    for directory in ("www", "early", "late"):
        os.mkdir(f"{work}/{directory}")
    with open(f"{work}/www/index.html", "w", encoding="utf-8") as file:
        file.write("It works: hello from usercontainerd\n")
    more = f"""\
command = ["sh", "-c", "trap 'exit 0' TERM; httpd -f -p 8080 -h /www & wait"]
mounts = ["{work}/www:/www:ro"]
service.Environment = ["XDG_CONFIG_HOME={work}", "XDG_DATA_HOME={images}"]
"""
    # Where nothing is installed, systemd cannot run the generator itself.
    setup = f"""\
mkdir -p "$XDG_RUNTIME_DIR/systemd/user"
XDG_CONFIG_HOME={work} XDG_DATA_HOME={images} XDG_CACHE_HOME={work} \\
  {TOP}/libexec/usercontainerd-generator "$XDG_RUNTIME_DIR/systemd/user" {work}/early {work}/late
systemctl --user daemon-reload"""
    print(f"The demo runs in {session.title}.", flush=True)
    try:
        tell_main_story(
            story,
            name=name,
            image=image,
            port=port,
            more=more,
            directory=f"{work}/usercontainerd/containers",
            setup=setup,
        )
    finally:
        session.run(
            f"systemctl --user stop {unit}; systemctl --user reset-failed {unit}\n"
            f'rm -rf "$XDG_RUNTIME_DIR/systemd/user/{unit}" "$XDG_RUNTIME_DIR/usercontainerd/containers/{name}"\n'
            "systemctl --user daemon-reload\n"
            # Directories that were made for this container alone.
            'cd "$XDG_RUNTIME_DIR"\n'
            "rmdir systemd/user usercontainerd/containers && rm -rf usercontainerd\n"
        )
        shutil.rmtree(work, ignore_errors=True)
    print(f"\nAll of it is gone again, but for the image in {images}.")
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
            good = _demo_in_machine(options.port, keep=options.keep)
    except StepFailed as failure:
        print(f"\ndemo: {failure}")
        return 1
    print(f"\n{'Done' if good else 'It did not work'} ({time.monotonic() - started:.0f} s).")
    return 0 if good else 1
