"""``usercontainer enable`` and ``disable``: whether containers start with the user's session."""

from __future__ import annotations

from usercontainerd.cli.lifecycle import for_each
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import write_error
from usercontainerd.engine.containers.autostart import DEFAULT_TARGET, disable_autostart, enable_autostart
from usercontainerd.engine.containers.lifecycle import start_container, stop_containers
from usercontainerd.engine.host.facts import lingers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.cli.call import Call
    from usercontainerd.systemd.manager import Manager

ENABLE = Verb(
    "enable",
    "CONTAINER [CONTAINER...]",
    "Have containers start with your session",
    (
        Option("--now", "start them now, too"),
        Option(
            "--target UNIT",
            f"start them with this unit of your systemd ({DEFAULT_TARGET})",
            (DEFAULT_TARGET, "graphical-session.target"),
        ),
    ),
    fewest=1,
    details="That is at your first login; at boot after `loginctl enable-linger`.",
)
DISABLE = Verb(
    "disable",
    "CONTAINER [CONTAINER...]",
    "Have containers start by hand only",
    (Option("--now", "stop them now, too"),),
    fewest=1,
    details="Also what a definition wants to start, one of the administrator's or a package's included.",
)


def run_enable(call: Call) -> int:
    """Enable each; say when that is, if it is not at boot."""
    target = call.options.value("target") or ""
    now = call.options.flag("now")
    context = call.context()

    def act(manager: Manager, name: str) -> None:
        enable_autostart(context, manager, name, target=target)
        if now:
            start_container(manager, name)

    status = for_each(call, act)
    if status == 0 and target in ("", DEFAULT_TARGET) and not lingers(context.user):
        write_error("That is at your first login; for a start at boot: loginctl enable-linger\n")
    return status


def run_disable(call: Call) -> int:
    """Disable each."""
    now = call.options.flag("now")
    context = call.context()

    def act(manager: Manager, name: str) -> None:
        disable_autostart(context, manager, name)
        if now:
            stop_containers(manager, [name])

    return for_each(call, act)


VERBS = {"disable": (DISABLE, run_disable), "enable": (ENABLE, run_enable)}
