"""The command line of tools/machine."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from machinelib import machines, native
from machinelib.addon import AddOn, name_add_on, obtain_add_on
from machinelib.cache import Artifact, clean_artifacts, say
from machinelib.cgroup import require_hierarchy
from machinelib.desktop import DESKTOP
from machinelib.diskimage import hash_image, obtain_disk_image
from machinelib.hosttools import MachineError
from machinelib.kernel import KernelPlan, run_kernel_order
from machinelib.layers import CHECKOUT, obtain_installation
from machinelib.pip import hash_pip, obtain_pip
from machinelib.recipe import SUITE, SUITE_VARIABLE, SUITES, choose_recipe, hash_recipe
from machinelib.registry import list_artifact_names, obtain_registry
from machinelib.rootfs import obtain_rootfs
from machinelib.rpmtools import RPM_TOOLS
from machinelib.selinux import list_image_names, obtain_labelled_image
from machinelib.session import Order, Session, run_order
from machinelib.terminal import open_terminal, relay_terminal
from machinelib.uml import hash_kernel, obtain_kernel

# Layers that a machine has if it is asked for them, by their options.
ADD_ONS: dict[str, AddOn] = {"desktop": DESKTOP, "rpm": RPM_TOOLS}

FAILED = 125  # as docker run has it: the machine failed, not the command in it


class _EndedError(BaseException):
    """A signal asks us to end; unwinding removes the machine."""


def build_parser() -> argparse.ArgumentParser:
    """The grammar of the command line."""
    parser = argparse.ArgumentParser(prog="tools/machine", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)

    build = verbs.add_parser("build", help="build what is not cached yet")
    build.add_argument("--kernel", action="store_true", help="for the kernel lane, too")
    _add_suite_option(build)
    build.set_defaults(act=act_build)

    run = verbs.add_parser("run", help="run a command in a new machine, or in a running one (--name)")
    run.add_argument("--name", help="a running machine; default: a new one that ends with the command")
    run.add_argument(
        "--timeout", type=float, metavar="S", help="kill the command after S seconds (status 124)"
    )
    run.add_argument("--lane", choices=("native", "kernel", "auto"), default="native")
    run.add_argument("--kernel", action="store_true", help="the same as --lane kernel")
    run.add_argument(
        "--selinux", action="store_true", help="on the kernel lane, with SELinux enforcing Debian's policy"
    )
    run.add_argument("--memory", default="2G", help="of a machine of the kernel lane (default: %(default)s)")
    run.add_argument("--tty", action="store_true", help="give the command a terminal")
    _add_order_options(run)
    _add_boot_options(run)
    run.set_defaults(act=act_run)

    boot = verbs.add_parser("boot", help="leave a machine running in the background")
    boot.add_argument("--name", default="default")
    _add_boot_options(boot)
    boot.set_defaults(act=act_boot)

    shell = verbs.add_parser("shell", help="a terminal in a running machine")
    shell.add_argument("--name", default="default")
    _add_order_options(shell)
    shell.set_defaults(act=act_shell)

    stop = verbs.add_parser("stop", help="end a machine and remove all of it")
    stop.add_argument("--name", default="default")
    stop.add_argument("--all", action="store_true", help="every machine")
    stop.set_defaults(act=act_stop)

    verbs.add_parser("list", help="the running machines").set_defaults(act=act_list)

    clean = verbs.add_parser("clean", help="remove cached files that this checkout no longer needs")
    clean.add_argument("--all", action="store_true", help="remove the whole cache")
    clean.set_defaults(act=act_clean)
    return parser


def _add_order_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--user", default="alice", help="alice (default), bob or root")
    parser.add_argument("command", nargs="*", metavar="COMMAND", help="default: a login shell")


def _add_suite_option(parser: argparse.ArgumentParser) -> None:
    default = os.environ.get(SUITE_VARIABLE, SUITE)
    if default not in SUITES:
        sys.exit(f"machine: {SUITE_VARIABLE} is {default!r}, and has to be one of {', '.join(SUITES)}")
    told = f"which Debian (default: ${SUITE_VARIABLE}, else {SUITE})"
    parser.add_argument("--suite", choices=SUITES, default=default, help=told)


def _add_boot_options(parser: argparse.ArgumentParser) -> None:
    _add_suite_option(parser)
    parser.add_argument("--registry", action="store_true", help="with a seeded registry at localhost:5000")
    parser.add_argument("--registry-big", action="store_true", help="... that has a large image, too")
    parser.add_argument(
        "--desktop", action="store_true", help="with GTK, an X server without a screen, D-Bus clients"
    )
    parser.add_argument("--rpm", action="store_true", help="with rpm, rpmbuild, rpmlint and dnf")
    parser.add_argument(
        "--bare",
        action="store_true",
        help="without the installed checkout: for tests that install it themselves",
    )
    parser.add_argument("--pip", action="store_true", help="with pip, venv and wheels of all that we need")
    parser.add_argument(
        "--disk", action="store_true", help="what the machine writes goes to disk, not to memory"
    )


def main(arguments: Sequence[str]) -> int:
    """Run the command line; the exit status."""
    options = build_parser().parse_args(arguments)
    act: Callable[[argparse.Namespace], int] = options.act
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _raise_ended)
    try:
        return act(options)
    except MachineError as error:
        say(str(error))
        return FAILED
    except KeyboardInterrupt:
        return 130
    except _EndedError as ended:
        return 128 + int(ended.args[0])


def _raise_ended(number: int, _frame: FrameType | None) -> None:
    raise _EndedError(number)


def act_build(options: argparse.Namespace) -> int:
    """Build what is missing."""
    rootfs = obtain_rootfs(choose_recipe(options.suite))
    say(f"root file system: {rootfs.path}")
    obtain_registry(rootfs, big=False)
    if options.kernel:
        say(f"kernel: {obtain_kernel(rootfs).program}")
        say(f"disk image: {obtain_disk_image(rootfs)}")
    return 0


def act_run(options: argparse.Namespace) -> int:
    """Run a command in a running machine, or in one of its own."""
    machines.sweep_machines()
    order = Order(tuple(options.command), options.user, options.timeout)
    if options.name is not None:
        return _run_in(_find_native(options.name), order, options.tty)
    name = f"run-{os.getpid()}"
    if _choose_lane(options) == "kernel":
        return run_kernel_order(name, _plan_kernel(options), order)
    with _keep_new_machine(name, options) as machine:
        return _run_in(machine.record, order, options.tty)


def _run_in(record: machines.Record, order: Order, tty: bool) -> int:
    hierarchy = require_hierarchy()
    if not tty:
        return run_order(record, hierarchy, order)
    ours, theirs = open_terminal(record.init)
    session = Session(record, hierarchy, Order(order.arguments, order.user, order.timeout, theirs))
    os.close(theirs)
    relay_terminal(ours)
    return session.wait()


def _find_native(name: str) -> machines.Record:
    record = machines.find_machine(name)
    if record.lane != "native":
        raise MachineError(
            f"machine '{name}' is of the kernel lane, which runs its one command and nothing else"
        )
    return record


def _choose_lane(options: argparse.Namespace) -> str:
    lane: str = "kernel" if options.kernel or options.selinux else options.lane
    if lane != "kernel" and (reason := native.probe_support()) is not None:
        if lane == "native":
            raise MachineError(f"{reason} (the kernel lane needs no privilege: --kernel, or --lane auto)")
        say(f"{reason}; taking the kernel lane")
        return "kernel"
    return lane


def _plan_kernel(options: argparse.Namespace) -> KernelPlan:
    rootfs = obtain_rootfs(choose_recipe(options.suite))
    image = obtain_labelled_image(rootfs, options.suite) if options.selinux else obtain_disk_image(rootfs)
    layers = [layer.path / "tree" for layer in _obtain_layers(options)[:-1]]
    return KernelPlan(obtain_kernel(rootfs), image, tuple(layers), CHECKOUT, options.memory)


@contextmanager
def _keep_new_machine(name: str, options: argparse.Namespace) -> Iterator[native.Machine]:
    layers = _obtain_layers(options)
    with native.keep_machine(
        name, tuple(layer.path / "tree" for layer in layers), CHECKOUT, options.disk
    ) as machine:
        yield machine


def _obtain_layers(options: argparse.Namespace) -> list[Artifact]:
    rootfs = obtain_rootfs(choose_recipe(options.suite))
    layers = [] if options.bare else [obtain_installation(rootfs)]
    add_ons = [add_on for name, add_on in ADD_ONS.items() if getattr(options, name)]
    layers += [obtain_add_on(add_on, rootfs, options.suite) for add_on in add_ons]
    if options.pip:
        layers.append(obtain_pip(rootfs, options.suite))
    if options.registry or options.registry_big:
        layers += obtain_registry(rootfs, options.registry_big)
    return [*layers, rootfs]


def act_boot(options: argparse.Namespace) -> int:
    """Boot a machine, and leave a process behind that keeps it."""
    machines.sweep_machines()
    if (reason := native.probe_support()) is not None:
        raise MachineError(reason)
    _obtain_layers(options)  # here, where progress can be seen
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        _keep_in_background(options, writer)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        failure = pipe.read()
    if failure != "ready":
        raise MachineError(failure or "the keeper of the machine died")
    say(f"'{options.name}' is running; tools/machine shell --name {options.name} enters it, stop ends it")
    return 0


def _keep_in_background(options: argparse.Namespace, writer: int) -> None:
    """The keeper's life: boot, say so, wait for the machine's end or for SIGTERM, remove everything."""
    os.setsid()
    os.chdir("/")
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    # Whoever called us may wait for the end of a pipe that we inherited.
    os.closerange(3, writer)
    os.closerange(writer + 1, 65536)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    report = "the keeper of the machine died"
    try:
        with _keep_new_machine(options.name, options) as machine:
            report = ""
            os.write(writer, b"ready")
            os.close(writer)
            native.wait_machine(machine)
    except MachineError as error:
        report = str(error)
    except BaseException as error:
        report = f"{type(error).__name__}: {error}"
    finally:
        with suppress(OSError):
            os.write(writer, report.encode())
        os._exit(0)


def act_shell(options: argparse.Namespace) -> int:
    """An interactive session in a running machine."""
    order = Order(tuple(options.command), options.user)
    return _run_in(_find_native(options.name), order, sys.stdin.isatty())


def act_stop(options: argparse.Namespace) -> int:
    """End machines."""
    records = machines.list_machines() if options.all else [machines.find_machine(options.name)]
    for record in records:
        native.stop_machine(record)
    return 0


def act_list(_options: argparse.Namespace) -> int:
    """Show the running machines."""
    for record in machines.list_machines():
        state = "running" if record.ready else "booting"
        print(f"{record.name:<16} {record.lane:<8} {state:<8} init {record.init:<8} {record.cgroup}")
    return 0


def act_clean(options: argparse.Namespace) -> int:
    """Remove what no machine needs any more."""
    machines.sweep_machines()
    keep = set() if options.all else {name for suite in SUITES for name in _list_needed(suite)}
    for name in clean_artifacts(lambda name, _age: name not in keep):
        say(f"removed {name}")
    return 0


def _list_needed(suite: str) -> list[str]:
    """What machines of a suite are made of, in this checkout."""
    rootfs = f"rootfs-{hash_recipe(choose_recipe(suite))}"
    lane = [f"uml-{hash_kernel(rootfs)}", f"image-{hash_image(rootfs)}"]
    lane += [f"pip-{hash_pip(rootfs)}", *(name_add_on(add_on, rootfs) for add_on in ADD_ONS.values())]
    lane += list_image_names(rootfs)
    return [rootfs, *lane, *list_artifact_names(rootfs)]
