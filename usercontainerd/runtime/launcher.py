"""The launcher: turns a prepared bundle into the unit's main process, and leaves.

It is the unit's ``ExecStart=``. Two processes take part; the parent stays outside the new user namespace::

    parent (the user)                          child (root of the container's namespaces)
    read the plan; prepare if it is stale
    fork ------------------------------------> unshare user, mount (and network) namespaces
    newuidmap, newgidmap   <---- "u" ---------
                           ----- "m" --------> become root, mount the overlay,
    start pasta, wait for it                   crun create
                           ----- "g" --------> MAINPID=<init> READY=1; release init
    leave                  <---- "s" --------- delete the last run's writable layer; leave

Only crun's init (and pasta, and cat(1) where the output is to be a pipe) stay. Init was forked by a crun that is gone
by then, so systemd, the nearest subreaper, is its parent when MAINPID arrives, and learns its true exit status. MAINPID
and READY are sent while init still waits to be released: a command that ends at once is seen to start and to end.

This is the hot path of every start: what it imports is fixed by a test.
"""

from __future__ import annotations

import posix as os

from usercontainerd import __version__
from usercontainerd.base.errors import RuntimeFailure, UsercontainerError
from usercontainerd.base.names import is_container_name, runtime_id, unit_name
from usercontainerd.base.paths import Paths, encode_path
from usercontainerd.kernel.cgroups import (
    enter_subgroup,
    kill_leftovers,
    leave_subgroup,
    repeat_limits,
    write_file,
)
from usercontainerd.kernel.idmap import finish_map_writers, start_map_writers
from usercontainerd.kernel.userns import (
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWUSER,
    become_namespace_root,
    unshare_namespaces,
)
from usercontainerd.runtime.plan import LaunchPlan, is_current, read_plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from usercontainerd.runtime.stdio import Stdio


class AlreadyReported(Exception):
    """A part of the launch failed and has said why, on standard error and in ``STATUS=``."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Launch:
    """One start of one container: what both processes know."""

    def __init__(self, paths: Paths, name: str, inherited: dict[str, str], programs: str) -> None:
        self.paths = paths
        self.name = name
        self.bundle = paths.bundle(name)
        self.inherited = inherited
        self.notify_socket = inherited.get("NOTIFY_SOCKET")
        self.programs = programs
        self.device = ""  # the name of pasta's, in the container
        self.program = ""  # crun's, where it is not that of the plan
        self.output: tuple[int, int] | None = None  # the pipe, where the plan wants one
        self.stdio: Stdio | None = None  # what is not simply the unit's own
        # No NOTIFY_SOCKET or LISTEN_FDS: crun would act on them.
        self.environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "XDG_RUNTIME_DIR": paths.runtime_root}

    def notify(self, message: str, *, wait: bool = False) -> None:
        """Tell systemd."""
        from usercontainerd.kernel.notification import notify, notify_and_wait

        (notify_and_wait if wait else notify)(self.notify_socket, message)

    def crun(self, plan: LaunchPlan, *arguments: str, streams: Mapping[int, int] | None = None) -> None:
        """Run crun to its end; its log tells what went wrong. ``streams`` are put in the place of 0, 1 and 2."""
        from usercontainerd.kernel.spawning import spawn, wait_exit

        streams = streams or {}
        log = f"{self.bundle}/crun-{arguments[0]}.log"
        pid = spawn(
            [
                self.program or plan.crun,
                "--root",
                self.paths.crun_root,
                "--cgroup-manager=disabled",
                f"--log=file:{log}",
                *arguments,
            ],
            self.environment,
            stdin=streams.get(0),
            stdout=streams.get(1),
            stderr=streams.get(2),
        )
        import usercontainerd.kernel.notification  # noqa: F401  # what comes next, imported while crun works

        if wait_exit(pid) != 0:
            from usercontainerd.runtime.failure import explain_crun_failure, read_log_tail

            raise explain_crun_failure(read_log_tail(log), self.name)


def obtain_plan(launch: Launch) -> LaunchPlan:
    """Return a current plan, running ``prepare`` first where there is none."""
    path = f"{launch.bundle}/plan"
    plan = read_plan(path, __version__)
    if plan is None or not is_current(plan):
        _prepare(launch)
        plan = read_plan(path, __version__)
        if plan is None:
            raise RuntimeFailure("prepare left no launch plan", where=path)
    return plan


def _prepare(launch: Launch) -> None:
    from usercontainerd.runtime.preparing import run_prepare

    unit = unit_name(launch.name)
    status = run_prepare(unit, launch.name, f"{launch.programs}/prepare", launch.inherited, launch.notify)
    if status != 0:
        raise AlreadyReported(status if status > 0 else 128 - status)


class PeerGone(RuntimeFailure):
    """The other process of the launch has ended: it has the cause, and tells it."""


def _receive(fd: int, expected: bytes, who: str) -> None:
    if os.read(fd, 1) != expected:
        raise PeerGone(f"the launcher's {who} ended early")


def _send(fd: int, message: bytes, who: str) -> None:
    try:
        os.write(fd, message)
    except BrokenPipeError as error:
        raise PeerGone(f"the launcher's {who} ended early") from error


def protect_crun(launch: Launch, plan: LaunchPlan) -> None:
    """Have crun's program read-only here, and tell it: else it makes itself a copy, and runs that (1 ms).

    That guards it against a container that writes to the program by which it was made (CVE-2019-5736). It is in the
    bundle, not in its place: a container that has the host's /usr would see it there.
    """
    from usercontainerd.kernel.rawmount import bind_read_only

    target = f"{launch.bundle}/crun"
    try:
        os.close(os.open(target, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        bind_read_only(encode_path(plan.crun), encode_path(target))
    except OSError:
        return  # its own way is as good
    launch.program = target
    launch.environment["_LIBCONTAINER_CLONED_BINARY"] = "1"


def mount_root(launch: Launch, plan: LaunchPlan) -> None:
    """Mount the container's root: the image's layers below a writable one.

    The option string holds only our own relative names (symlinks in the bundle), so neither its length nor a comma
    or colon in a path can matter (overlayfs.rst).
    """
    from usercontainerd.kernel.rawmount import mount
    from usercontainerd.runtime.remains import layer_directory

    os.chdir(launch.bundle)
    layer = layer_directory(plan.data)
    # The mode of ``upper`` becomes that of the container's /.
    for directory, mode in ((layer, 0o700), (f"{layer}/work", 0o700), (f"{layer}/upper", 0o755)):
        try:
            os.mkdir(directory, mode)
        except FileExistsError:
            pass  # kept from the last run; or not all of it, when that was killed here
    # The kernel's mark on a layer that a crash may have left unwritten (overlayfs.rst, "Volatile mount").
    mark = f"{layer}/work/work/incompat"
    if plan.remove and os.access(mark, os.F_OK):
        # The container is restarted: had the machine gone down, its definition were gone, too.
        from usercontainerd.kernel.trees import remove_tree

        remove_tree(mark)
    lower = ":".join(f"lower/{index}" for index in range(plan.layers))
    speed = "" if plan.keep else ",volatile"
    try:
        mount(
            b"overlay",
            b"rootfs",
            b"overlay",
            0,
            f"lowerdir={lower},upperdir=upper,workdir=work,userxattr{speed}".encode(),
        )
    except OSError as error:
        gone = [link for link in lower.split(":") if link and not os.access(link, os.F_OK)]
        if gone:
            raise RuntimeFailure(
                "the image was removed just now", where=launch.name, hint="start it again to have it pulled"
            ) from error
        raise RuntimeFailure(
            f"cannot mount the image's layers: {error.strerror}",
            where=launch.name,
            hint="overlayfs in a user namespace needs Linux 5.11; see `usercontainer doctor`",
        ) from error


def hold_layers(launch: Launch) -> None:
    """Keep layers from being removed as long as this process lives: by then it shows that they are in use.

    See ``store/usage.py`` for the other side.
    """
    from usercontainerd.kernel.atomicfile import FileLock

    FileLock(f"{launch.paths.data}/locks/starting", exclusive=False).acquire()


def hold_writable_layer(plan: LaunchPlan) -> None:
    """Wait for whoever copies files into it, and keep others from that until the container can be seen to run."""
    from usercontainerd.kernel.atomicfile import FileLock
    from usercontainerd.runtime.remains import layer_lock

    FileLock(layer_lock(plan.data), exclusive=False).acquire()


def fill_volumes(plan: LaunchPlan) -> None:
    """Give a volume that is still empty the image's content."""
    if plan.volumes:
        from usercontainerd.runtime.volumes import make_if_missing, populate_volume

        for directory, target in plan.volumes:
            if make_if_missing(directory):
                populate_volume("rootfs", directory, target)


def run_child(launch: Launch, plan: LaunchPlan, incoming: int, outgoing: int) -> None:
    """The child's half; see the module's picture."""
    flags = CLONE_NEWUSER | CLONE_NEWNS | (CLONE_NEWNET if plan.network == "pasta" else 0)
    unshare_namespaces(flags)
    _send(outgoing, b"u", "parent")
    # All that need not come before is done while the parent maps the IDs: the imports take about as long as newuidmap.
    import usercontainerd.kernel.atomicfile
    import usercontainerd.kernel.rawmount
    import usercontainerd.kernel.spawning  # noqa: F401
    from usercontainerd.runtime.remains import discard_layer, discard_runtime_state

    if plan.network == "pasta":
        from usercontainerd.kernel.tap import make_persistent_tap

        make_persistent_tap(launch.device)
    protect_crun(launch, plan)
    discard_runtime_state(launch.paths, launch.name)
    # Of one that is removed when it has ended, there is a layer only if it is being restarted.
    trash = None if plan.keep or plan.remove else discard_layer(launch.paths, launch.name)
    _receive(incoming, b"m", "parent")
    become_namespace_root(plan.id_map)
    if plan.network == "pasta":
        write_file("/proc/sys/net/ipv4/ping_group_range", "0 0")
    if plan.layers:
        hold_layers(launch)
    hold_writable_layer(plan)
    mount_root(launch, plan)
    fill_volumes(plan)
    streams = {} if launch.output is None else {1: launch.output[1], 2: launch.output[1]}
    further: tuple[str, ...] = ()
    if launch.stdio is not None:
        streams.update(launch.stdio.streams)
        further = launch.stdio.arguments
    create = (
        "create",
        "--bundle",
        launch.bundle,
        "--pid-file",
        f"{launch.bundle}/pid",
        *further,
        runtime_id(launch.name),
    )
    launch.crun(plan, *create, streams=streams)
    if launch.output is not None:
        os.close(launch.output[1])
    with open(f"{launch.bundle}/pid", encoding="utf-8") as file:
        init = int(file.read())
    if plan.init_system:
        leave_subgroup()
    _receive(incoming, b"g", "parent")
    ready = "READY=1\nSTATUS=Running" if plan.ready else "STATUS=Started; waiting for the application"
    # Read before init can end: systemd takes no main process that is dead, and its exit status would be lost.
    launch.notify(f"MAINPID={init}\n{ready}", wait=True)
    release_init(launch, plan)
    _send(outgoing, b"s", "parent")
    if trash is not None:
        from usercontainerd.kernel.trees import remove_tree

        remove_tree(trash)


def release_init(launch: Launch, plan: LaunchPlan) -> None:
    """Let the created init go on into its command: what ``crun start`` does, without a fourth program (5 ms)."""
    fifo = f"{launch.paths.crun_root}/{runtime_id(launch.name)}/exec.fifo"
    try:
        # Not blocking: a reader is there already, or init is dead.
        fd = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        launch.crun(plan, "start", runtime_id(launch.name))
        return
    try:
        os.unlink(fifo)  # a container that has it is "created", one without is "running"
        os.write(fd, b"\0")
    finally:
        os.close(fd)


def start_pasta(launch: Launch, plan: LaunchPlan, child: int) -> int:
    """Start pasta on the child's namespaces; it goes to the background once the network is up."""
    from usercontainerd.kernel.signals import SIGPIPE
    from usercontainerd.kernel.spawning import spawn

    arguments = [
        *plan.pasta,
        "--ns-ifname",
        launch.device,
        "--userns",
        f"/proc/{child}/ns/user",
        "--netns",
        f"/proc/{child}/ns/net",
    ]
    # Debian 12's pasta takes an ignored SIGPIPE, which it would inherit, for a failure.
    return spawn(arguments, launch.environment, reset_signals=(SIGPIPE,))


def run_parent(launch: Launch, plan: LaunchPlan, child: int, incoming: int, outgoing: int) -> None:
    """The parent's half; see the module's picture."""
    _receive(incoming, b"u", "child")
    finish_map_writers(start_map_writers(child, plan.id_map))
    _send(outgoing, b"m", "child")
    if plan.init_system:
        leave_subgroup()  # and pasta with us
    if launch.output is not None:
        from usercontainerd.runtime.copier import start_copier

        start_copier(launch.bundle, launch.environment, launch.output)
    if plan.network == "pasta":
        if plan.ports:
            from usercontainerd.kernel.ports import check_ports_free

            check_ports_free(plan.ports)
        if os.waitpid(start_pasta(launch, plan, child), 0)[1] != 0:
            raise RuntimeFailure(
                "pasta could not set up the network; its message is above",
                where=launch.name,
                hint="`usercontainer doctor` says whether it is too old",
            )
    if launch.stdio is not None:
        launch.stdio.hand_over(incoming, launch.environment)
    _send(outgoing, b"g", "child")
    _receive(incoming, b"s", "child")


def launch_container(launch: Launch) -> None:
    """Start the container; on return it runs and systemd knows its init."""
    enter_subgroup()
    kill_leftovers()
    plan = obtain_plan(launch)
    repeat_limits(plan.cgroup)
    if (
        plan.terminal
        or plan.interactive
        or os.access(f"{launch.bundle}/caller", os.F_OK, follow_symlinks=False)
    ):
        from usercontainerd.runtime.stdio import Stdio

        launch.stdio = Stdio(launch.bundle, plan)
    if plan.pipe and not (launch.stdio is not None and {1, 2} <= launch.stdio.streams.keys()):
        launch.output = os.pipe()
        os.fchmod(launch.output[1], 0o622)  # to be opened by name by users that the command goes over to, too
    if plan.network == "pasta":
        from usercontainerd.kernel.tap import read_device_name

        launch.device = read_device_name()
    child_reads, parent_writes = os.pipe()
    parent_reads, child_writes = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(parent_writes)
        os.close(parent_reads)
        _exit_with(launch, lambda: run_child(launch, plan, child_reads, child_writes))
    os.close(child_reads)
    os.close(child_writes)
    try:
        run_parent(launch, plan, child, parent_reads, parent_writes)
    except PeerGone:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status > 0:
            raise AlreadyReported(status) from None
        raise
    except (UsercontainerError, OSError):
        os.close(parent_writes)  # the child's next read ends it
        os.waitpid(child, 0)
        raise


def _report(launch: Launch, error: UsercontainerError) -> None:
    from usercontainerd.kernel.notification import notify_and_wait, one_line, write_line

    write_line(str(error), 3, launch.inherited)
    if launch.stdio is not None:
        launch.stdio.tell_failure(error.exit_status, str(error))
    try:
        notify_and_wait(launch.notify_socket, f"STATUS={one_line(str(error))}")
    except UsercontainerError:
        pass


def _report_os_error(launch: Launch, error: OSError) -> None:
    from usercontainerd.runtime.failure import explain_os_error

    _report(launch, explain_os_error(error, launch.name))


def _exit_with(launch: Launch, action: Callable[[], None]) -> None:
    """Run the child's half and end the process, whatever happens: it must never return into the parent's code."""
    status = 125
    try:
        action()
        status = 0
    except PeerGone:
        pass
    except UsercontainerError as error:
        _report(launch, error)
        status = error.exit_status
    except OSError as error:
        _report_os_error(launch, error)
    finally:
        os._exit(status)


def main(arguments: list[str], environment: dict[str, str], programs: str) -> int:
    """``launch NAME``: the body of ``ExecStart=``. ``programs`` is the directory of prepare and the others."""
    if len(arguments) != 1 or not is_container_name(arguments[0]):
        os.write(2, b"usage: launch NAME (it is the ExecStart= of container@NAME.service)\n")
        return 125
    os.umask(0o022)
    paths = Paths.from_environment(environment, os.getuid())
    launch = Launch(paths, arguments[0], environment, programs)
    try:
        launch_container(launch)
    except AlreadyReported as failure:
        return failure.status
    except UsercontainerError as error:
        _report(launch, error)
        return error.exit_status
    except OSError as error:
        _report_os_error(launch, error)
        return UsercontainerError.exit_status
    return 0
