"""``usercontainer pull``."""

from __future__ import annotations

import os
import time

from usercontainerd.base.errors import Cancelled, InvalidArgument, printable
from usercontainerd.base.sizes import format_size
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import truncate, write_error, write_output
from usercontainerd.cli.registry_options import ACCESS_OPTIONS, read_access

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

    from usercontainerd.cli.call import Call
    from usercontainerd.engine.access import RegistryAccess
    from usercontainerd.engine.context import Context
    from usercontainerd.engine.endpoints import Conversation
    from usercontainerd.store.images import ImageRecord

PULL = Verb(
    "pull",
    "IMAGE [IMAGE...]",
    "Get an image from a registry",
    (
        *ACCESS_OPTIONS,
        Option("--platform OS/ARCH[/VARIANT]", "the platform to choose, where the image has several"),
        Option("--policy POLICY", "always (default), missing, newer or never"),
        Option("-q, --quiet", "show no progress"),
        Option("--signature-policy FILE", "which images may come, instead of policy.json"),
    ),
    fewest=1,
    details="Prints the image's ID. Short names are looked up as registries.conf(5) says. From files:\n"
    "docker-archive:FILE[:NAME], oci-archive:FILE[:NAME], oci:DIRECTORY[:NAME], dir:DIRECTORY.",
    refused={
        "--all-tags": "not possible yet",
        "-a": "not possible yet",
        "--disable-content-trust": "there is no content trust",
    },
)
# As engine.loading.TRANSPORTS, which costs the imports of a pull; docker:// and names go to registries.
TRANSPORTS = ("docker-archive:", "oci-archive:", "oci:", "dir:")
_INTERVAL = 0.1  # seconds between two updates of the line
_SAID = ("resolve", "wait", "download", "exists", "present", "mount", "compress", "upload")


def run_pull(call: Call) -> int:
    """Pull each image."""
    context = call.context()
    policy = read_policy(call.options.value("policy"))
    access = read_access(call)
    for word in call.words:
        if word.startswith(TRANSPORTS):
            pull_from_file(call, context, word)
            continue
        record = pull_with_progress(
            context,
            word,
            policy,
            call.options.value("platform"),
            quiet=call.options.flag("quiet"),
            access=access,
            signature_policy=call.options.value("signature-policy"),
        )
        write_output(f"{record.id.hex}\n")
    return 0


def pull_from_file(call: Call, context: Context, text: str) -> None:
    """Pull from an archive or a directory; a docker archive may hold several images."""
    from usercontainerd.engine.loading import pull_archived
    from usercontainerd.oci.platform import parse_platform

    catch_termination()
    platform = call.options.value("platform")
    progress = Progress(text, shown=not call.options.flag("quiet"))
    try:
        pulled = pull_archived(
            context,
            text,
            progress=progress,
            platform=None if platform is None else parse_platform(platform),
            signature_policy=call.options.value("signature-policy"),
        )
    finally:
        progress.finish()
    for image in pulled:
        write_output(f"{image.record.id.hex}\n")


def pull_with_progress(
    context: Context,
    image: str,
    policy: str,
    platform: str | None,
    *,
    quiet: bool,
    access: RegistryAccess | None = None,
    signature_policy: str | None = None,
) -> ImageRecord:
    """Have the image in the store, showing progress on standard error."""
    from usercontainerd.definition.model import PullPolicy
    from usercontainerd.engine.access import AS_CONFIGURED
    from usercontainerd.engine.images import pull_image
    from usercontainerd.oci.platform import parse_platform

    catch_termination()
    progress = Progress(image, shown=not quiet)
    try:
        return pull_image(
            context,
            image,
            policy=PullPolicy(policy),
            access=access or AS_CONFIGURED,
            progress=progress,
            platform=None if platform is None else parse_platform(platform),
            talk=hold_conversation(progress),
            signature_policy=signature_policy,
        )
    finally:
        progress.finish()


def hold_conversation(progress: Progress) -> Conversation:
    """Questions on the terminal, where there is one, and notices beside the progress."""
    from usercontainerd.cli.terminal import ask_choice, has_terminal
    from usercontainerd.engine.endpoints import Conversation

    def notice(text: str) -> None:
        if progress.shown:
            progress.finish()
            write_error(f"{printable(text)}\n")

    return Conversation(choose=ask_choice if has_terminal() else None, notice=notice)


def read_policy(text: str | None, default: str = "always") -> str:
    """``--policy`` and ``--pull``. Raises ``InvalidArgument``."""
    if text is None:
        return default
    if text not in ("always", "missing", "newer", "never"):
        raise InvalidArgument(
            f'"{text}" is no pull policy', hint="possible are always, missing, newer, never"
        )
    return text


def catch_termination() -> None:
    """Let SIGTERM end a pull as Ctrl-C does: the store is left whole."""
    import signal

    def cancel(_number: int, _frame: FrameType | None) -> None:
        raise Cancelled("the pull was stopped")

    signal.signal(signal.SIGTERM, cancel)


class Progress:
    """Progress on standard error: one line that is written anew on a terminal, else one for each layer."""

    def __init__(self, image: str, *, shown: bool) -> None:
        self.image = image
        self.shown = shown
        self.terminal = shown and os.isatty(2)
        self._bytes: dict[str, tuple[int, int]] = {}
        self._said: set[tuple[str, str]] = set()
        self._last = 0.0
        self._width = 0

    def __call__(self, phase: str, item: str, done: int, total: int, /) -> None:
        """Take one report of the engine."""
        if not self.shown:
            return
        if total > 1 and item.startswith("sha"):
            self._bytes[item] = (done, total)
        if self.terminal:
            self._draw(phase)
        elif (phase, item) not in self._said and phase in _SAID:
            self._said.add((phase, item))
            write_error(f"{_describe(phase, item, total)}\n")

    def _draw(self, phase: str) -> None:
        now = time.monotonic()
        if now - self._last < _INTERVAL and phase != "done":
            return
        self._last = now
        done = sum(each for each, _ in self._bytes.values())
        total = sum(each for _, each in self._bytes.values())
        share = f": {format_size(done)} of {format_size(total)}" if total else ""
        text = truncate(f"{self.image}: {phase}{share}", 79)
        write_error(f"\r{text.ljust(self._width)}")
        self._width = len(text)

    def finish(self) -> None:
        """Take the line away."""
        if self.terminal and self._width:
            write_error(f"\r{' ' * self._width}\r")


def _describe(phase: str, item: str, total: int) -> str:
    short = item.rpartition(":")[2][:12] if item.startswith("sha") else item
    return {
        "resolve": f"Looking up {short}",
        "wait": f"Layer {short}: waiting for another pull of it",
        "exists": f"Layer {short}: here already",
        "present": f"Blob {short}: the registry has it",
        "mount": f"Blob {short}: taken from another repository",
        "compress": f"Layer {short}: being compressed",
    }.get(phase, f"Blob {short}: {format_size(total)}" if total else f"Blob {short}")


VERBS = {"pull": (PULL, run_pull)}
