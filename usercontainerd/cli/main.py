"""``usercontainer VERB …``: finds the verb's module, imports only that, and turns errors into text and a status."""

from __future__ import annotations

import os

from usercontainerd.base.errors import InvalidArgument, UsercontainerError
from usercontainerd.cli.output import write_error, write_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from usercontainerd.cli.call import Call
    from usercontainerd.cli.options import Verb

PACKAGE = "usercontainerd.cli"
# Each verb, the module of this package that has it, and one line for the overview. Two words are a verb of a group.
VERBS = {
    "commit": ("commit", "Make an image of what a container has become"),
    "completion": ("completion_script", "Print the script for a shell's completion"),
    "container exists": ("container_names", "Tell by the exit status whether there is such a container"),
    "container inspect": ("inspect", "Show everything about containers, as JSON"),
    "cp": ("cp", "Copy files into a container, out of it, or from one to another"),
    "create": ("create", "Make a container from an image, without starting it"),
    "diff": ("diff", "Show what a container has changed of its image's files"),
    "disable": ("autostart", "Have containers start by hand only"),
    "doctor": ("doctor", "Check what this host offers, and say how to mend what is missing"),
    "enable": ("autostart", "Have containers start with your session"),
    "exec": ("execute", "Run a command in a running container"),
    "export": ("export", "Write a container's root file system as a tar archive"),
    "healthcheck run": ("healthcheck", "Check the health of a running container now"),
    "history": ("history", "Show how an image came to be"),
    "image diff": ("diff", "Show what an image's top layer changes, or how two images differ"),
    "image exists": ("image_names", "Tell by the exit status whether an image is here"),
    "image import-storage": ("import_storage", "Take over images of Podman's own store"),
    "image inspect": ("inspect", "Show everything about images, as JSON"),
    "image mount": ("image_mounts", "Mount images, inside `usercontainer unshare`"),
    "image prune": (
        "image_removal",
        "Remove images that nothing needs, and downloads that have stopped halfway",
    ),
    "image tree": ("image_tree", "Show the layers of an image, and which images share them"),
    "image trust": ("image_trust", "Show or set which images may come, and whose signatures they need"),
    "image unmount": ("image_mounts", "Unmount images"),
    "images": ("images", "List images"),
    "import": ("import_image", "Make an image of one layer from a tar archive"),
    "inspect": ("inspect", "Show everything about containers or images, as JSON"),
    "kill": ("signals", "Send a signal to the first process of containers"),
    "load": ("load", "Load images from an archive or a directory"),
    "login": ("login", "Log in to a registry"),
    "logout": ("login", "Log out of a registry"),
    "logs": ("logs", "Show what a container wrote"),
    "manifest add": ("manifest", "Add images to an index"),
    "manifest annotate": ("manifest", "Change what an index says of an image, or of itself"),
    "manifest create": ("manifest", "Make an index (manifest list), with images in it"),
    "manifest exists": ("manifest", "Tell by the exit status whether there is such an index here"),
    "manifest inspect": ("manifest", "Show an index: the one that is here, else the registry's"),
    "manifest push": ("manifest", "Put an index and its images into a registry"),
    "manifest remove": ("manifest", "Take an image out of an index"),
    "manifest rm": ("manifest", "Remove indexes"),
    "pause": ("signals", "Have all processes of containers stand still"),
    "port": ("port", "Show the published ports of a container"),
    "ps": ("ps", "List containers"),
    "pull": ("pull", "Get an image from a registry"),
    "push": ("push", "Put an image into a registry"),
    "restart": ("lifecycle", "Stop and start containers"),
    "rm": ("lifecycle", "Remove containers"),
    "rmi": ("image_removal", "Remove images"),
    "run": ("run", "Make a container from an image and run it"),
    "save": ("save", "Save images to an archive or a directory"),
    "search": ("search", "Search registries for images"),
    "setup": ("setup", "Put units, programs and D-Bus files of a copy that pip installed into place"),
    "start": ("lifecycle", "Start containers"),
    "stats": ("stats", "Show what running containers use"),
    "stop": ("lifecycle", "Stop containers"),
    "system check": ("system", "Find out whether the store is whole, and mend it"),
    "system df": ("disk_usage", "Show what images, containers and volumes take on disk"),
    "tag": ("image_names", "Give an image more names"),
    "top": ("top", "Show the processes of a container"),
    "unpause": ("signals", "Let the processes of paused containers go on"),
    "unshare": ("image_mounts", "Run a command as root of a user namespace of your own"),
    "untag": ("image_names", "Take names from an image"),
    "update": ("update", "Change the limits and the restart policy of containers"),
    "verify": ("verify", "Report what is wrong with container definitions"),
    "wait": ("wait", "Wait until containers have ended, and print their exit statuses"),
    "version": ("version", "Show the version, and those of what containers run on"),
}
# docker's two-word spellings, and the verbs that have no other.
GROUPS = {
    "container": {
        **{
            verb: verb
            for verb in (
                *("commit", "cp", "create", "diff", "disable", "enable", "exec", "export", "kill", "logs"),
                *(
                    "pause",
                    "port",
                    "restart",
                    "rm",
                    "run",
                    "start",
                    "stats",
                    "stop",
                    "top",
                    "unpause",
                    "update",
                    "wait",
                ),
            )
        },
        "exists": "container exists",
        "inspect": "container inspect",
        "list": "ps",
        "ls": "ps",
        "ps": "ps",
    },
    "healthcheck": {"run": "healthcheck run"},
    "image": {
        **{
            verb: verb
            for verb in ("history", "import", "load", "pull", "push", "save", "search", "tag", "untag")
        },
        **{
            verb: f"image {verb}"
            for verb in (
                "diff",
                "exists",
                "import-storage",
                "inspect",
                "mount",
                "prune",
                "tree",
                "trust",
                "unmount",
            )
        },
        "list": "images",
        "ls": "images",
        "rm": "rmi",
        "umount": "image unmount",
    },
    "manifest": {
        verb: f"manifest {verb}"
        for verb in ("add", "annotate", "create", "exists", "inspect", "push", "remove", "rm")
    },
    "system": {verb: f"system {verb}" for verb in ("check", "df")},
}
# What the scripts in completions/ call, by cobra's names, and whether with descriptions: no verb of the user's.
COMPLETIONS = {"__complete": True, "__completeNoDesc": False}
BROKEN_PIPE_STATUS = 141  # 128 + SIGPIPE, as a shell sees a program that it killed
INTERRUPTED_STATUS = 130
GARBAGE_THRESHOLD = 50_000  # objects more than before: 5 to 10 MB; a long pull is still looked through


def main(arguments: list[str], environment: dict[str, str]) -> int:
    """Run the command line and return its exit status."""
    try:
        return dispatch(arguments, environment)
    except UsercontainerError as error:
        write_error(f"Error: {error}\n")
        return error.exit_status
    except BrokenPipeError:
        return BROKEN_PIPE_STATUS
    except KeyboardInterrupt:
        return INTERRUPTED_STATUS


def dispatch(arguments: list[str], environment: dict[str, str]) -> int:
    """Find the verb and hand it the rest. Raises ``UsercontainerError``."""
    if not arguments or arguments[0] in ("help", "--help", "-h"):
        return show_help(arguments[1:])
    word, *rest = arguments
    if word in COMPLETIONS:
        from usercontainerd.cli.completion import run_complete

        return run_complete(rest, environment, described=COMPLETIONS[word])
    if word in ("--version", "-v") and not rest:
        from usercontainerd.cli.version import write_short_version

        write_short_version()
        return 0
    if word in GROUPS:
        if rest and rest[0] in ("help", "--help", "-h"):
            return show_help([word, *rest[1:]])
        word, rest = find_group_verb(word, rest)
    if word not in VERBS:
        raise explain_unknown_verb(word)
    return run_verb(word, rest, environment)


def find_group_verb(group: str, rest: list[str]) -> tuple[str, list[str]]:
    """Read ``container ls`` and its like."""
    verbs = GROUPS[group]
    if not rest or rest[0] not in verbs:
        raise InvalidArgument(
            f"which verb of `usercontainer {group}`?", hint=f"possible are {', '.join(sorted(verbs))}"
        )
    return verbs[rest[0]], rest[1:]


def load_verb(name: str) -> tuple[Verb, Callable[[Call], int]]:
    """Import a verb's module; return its grammar and its function."""
    # __import__, since importlib is not loaded yet.
    module = __import__(f"{PACKAGE}.{VERBS[name][0]}", fromlist=("VERBS",))
    verb: Verb = module.VERBS[name][0]
    run: Callable[[Call], int] = module.VERBS[name][1]
    return verb, run


def run_verb(name: str, words: list[str], environment: dict[str, str]) -> int:
    """Parse the words behind the verb and run it."""
    from usercontainerd.cli.call import Call
    from usercontainerd.cli.options import parse_options, render_help

    verb, run = load_verb(name)
    options = parse_options(verb, words)
    if options.help:
        write_output(render_help(verb))
        return 0
    return run(Call(name, options, environment))


def show_help(words: list[str]) -> int:
    """``help``, ``help VERB``."""
    from usercontainerd.cli.options import render_help

    if words and words[0] in GROUPS:
        if len(words) == 1:
            write_output(render_group(words[0]))
            return 0
        words = [find_group_verb(words[0], words[1:])[0]]
    if words:
        if words[0] not in VERBS:
            raise explain_unknown_verb(words[0])
        write_output(render_help(load_verb(words[0])[0]))
        return 0
    lines = render_summaries({name: name for name in VERBS})
    write_output(
        "Usage: usercontainer VERB [OPTIONS] [ARGUMENTS]\n\n"
        "Containers as services of your own systemd.\n\n"
        "Verbs:\n" + lines + "\n"
        "`usercontainer VERB --help` and usercontainer(1) tell more. A container is the unit container@NAME.service:\n"
        "`systemctl --user` starts, stops and shows it too, and container-definition(5) says how to define one.\n"
    )
    return 0


def render_group(group: str) -> str:
    """The help of a group: its verbs."""
    return (
        f"Usage: usercontainer {group} VERB [OPTIONS] [ARGUMENTS]\n\nVerbs:\n{render_summaries(GROUPS[group])}\n"
        f"`usercontainer {group} VERB --help` and usercontainer(1) tell more.\n"
    )


def render_summaries(verbs: dict[str, str]) -> str:
    """A line for each verb, given by how it is spelled and which of ``VERBS`` it is."""
    width = max(map(len, verbs))
    return "".join(f"  {name:<{width}} {VERBS[verbs[name]][1]}\n" for name in sorted(verbs))


def explain_unknown_verb(word: str) -> InvalidArgument:
    """The error for a verb that there is not."""
    from usercontainerd.definition.suggestion import suggest

    likely = suggest(word, VERBS)
    hint = f"did you mean {likely}?" if likely else "`usercontainer help` lists all"
    return InvalidArgument(f'there is no verb "{word}"', hint=hint)


def run_program() -> None:
    """The body of the ``usercontainer`` program; does not return."""
    import gc
    import sys

    from usercontainerd.kernel.signals import raise_interrupt

    # What a short command imports and makes stays until it ends: to look for garbage in it is a tenth of its time.
    gc.set_threshold(GARBAGE_THRESHOLD)
    try:
        raise_interrupt()
        status = main(sys.argv[1:], dict(os.environ))
    except KeyboardInterrupt:
        status = INTERRUPTED_STATUS
    # No clean-up of the interpreter: it costs 3 ms, and nothing here needs it.
    os._exit(status)
