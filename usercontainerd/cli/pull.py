"""``usercontainer pull``."""

from __future__ import annotations

import os

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import write_output
from usercontainerd.cli.progress import PROGRESS, Progress, read_format
from usercontainerd.cli.registry_options import ACCESS_OPTIONS, read_access
from usercontainerd.cli.termination import catch_termination

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from usercontainerd.cli.call import Call
    from usercontainerd.cli.options import Options
    from usercontainerd.engine.context import Context
    from usercontainerd.engine.registries.access import RegistryAccess
    from usercontainerd.engine.registries.endpoints import Conversation
    from usercontainerd.engine.transfers.retrying import Retry
    from usercontainerd.oci.platform import Platform
    from usercontainerd.store.records import ImageRecord

POLICIES = ("always", "missing", "newer", "never")
# What `create` takes, too.
CHOICE_OPTIONS = (
    Option("--arch ARCH", "the architecture to choose, instead of this machine's"),
    Option("--disable-content-trust", "without effect; for scripts made for docker"),
    Option("--os OS", "the operating system to choose, instead of linux"),
    Option("--platform OS/ARCH[/VARIANT]", "the platform to choose, where the image has several"),
    Option("--retry NUMBER", "how often to try again, beside what each request is (default 0)"),
    Option("--retry-delay DURATION", "how long to wait before that (default 1s, then twice as long)"),
    Option("--variant VARIANT", "the variant of the architecture to choose, such as v7"),
)
PULL = Verb(
    "pull",
    "IMAGE [IMAGE...]",
    "Get an image from a registry",
    (
        *ACCESS_OPTIONS,
        Option("-a, --all-tags", "all images of the repository"),
        *CHOICE_OPTIONS,
        Option("--policy POLICY", "always (default), missing, newer or never", POLICIES),
        PROGRESS,
        Option("-q, --quiet", "show no progress"),
        Option("--signature-policy FILE", "which images may come, instead of policy.json"),
    ),
    fewest=1,
    details="Prints the image's ID. Short names are looked up as registries.conf(5) says. From files:\n"
    "docker-archive:FILE[:NAME], oci-archive:FILE[:NAME], oci:DIRECTORY[:NAME], dir:DIRECTORY.",
    refused={"--decryption-key": "encrypted images are not supported"},
)
# As engine.loading.TRANSPORTS, which costs the imports of a pull; docker:// and names go to registries.
TRANSPORTS = ("docker-archive:", "oci-archive:", "oci:", "dir:")


def run_pull(call: Call) -> int:
    """Pull each image."""
    options = call.options
    context = call.context()
    access = read_access(call)
    policy, platform = read_policy(options.value("policy")), read_platform(options)
    retry, form = read_retry(options), read_format(options.value("progress"))

    def pull(name: str) -> None:
        record = pull_with_progress(
            context,
            name,
            policy,
            platform,
            quiet=options.flag("quiet"),
            access=access,
            signature_policy=options.value("signature-policy"),
            retry=retry,
            form=form,
        )
        write_output(f"{record.id.hex}\n")

    for word in call.words:
        if word.startswith(TRANSPORTS):
            pull_from_file(call, context, word)
        elif options.flag("all-tags"):
            for name in list_names(context, word, access, quiet=options.flag("quiet")):
                pull(name)
        else:
            pull(word)
    return 0


def list_names(context: Context, word: str, access: RegistryAccess, *, quiet: bool) -> list[str]:
    """The full names of all images of a repository."""
    from usercontainerd.engine.registries.repositories import list_repository

    catch_termination("the pull was stopped")
    return list_repository(
        context, word, access=access, talk=hold_conversation(Progress(word, shown=not quiet))
    )


def pull_from_file(call: Call, context: Context, text: str) -> None:
    """Pull from an archive or a directory; a docker archive may hold several images."""
    from usercontainerd.engine.archives.loading import pull_archived

    catch_termination("the pull was stopped")
    form = read_format(call.options.value("progress"))
    progress = Progress(text, shown=not call.options.flag("quiet"), form=form)
    try:
        pulled = pull_archived(
            context,
            text,
            progress=progress,
            platform=read_platform(call.options),
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
    platform: Platform | None,
    *,
    quiet: bool,
    access: RegistryAccess | None = None,
    signature_policy: str | None = None,
    retry: Retry | None = None,
    form: str = "auto",
) -> ImageRecord:
    """Have the image in the store, showing progress on standard error."""
    from usercontainerd.definition.pull_policy import PullPolicy
    from usercontainerd.engine.registries.access import AS_CONFIGURED
    from usercontainerd.engine.transfers.obtaining import pull_image

    catch_termination("the pull was stopped")
    progress = Progress(image, shown=not quiet, form=form)
    talk = hold_conversation(progress)

    def pull() -> ImageRecord:
        return pull_image(
            context,
            image,
            policy=PullPolicy(policy),
            access=access or AS_CONFIGURED,
            progress=progress,
            platform=platform,
            talk=talk,
            signature_policy=signature_policy,
        )

    try:
        return pull() if retry is None else retry.run(pull, talk.notice)
    finally:
        progress.finish()


def hold_conversation(progress: Progress) -> Conversation:
    """Questions on the terminal, where there is one, and notices beside the progress."""
    from functools import cache

    from usercontainerd.cli.terminal import ask_choice, has_terminal
    from usercontainerd.engine.registries.endpoints import Conversation

    @cache  # what is tried again need not be asked again
    def ask(question: str, choices: tuple[str, ...]) -> int:
        progress.finish()
        return ask_choice(question, choices)

    def choose(question: str, choices: Sequence[str]) -> int:
        return ask(question, tuple(choices))

    return Conversation(choose=choose if has_terminal() else None, notice=progress.notice)


def read_policy(text: str | None, default: str = "always") -> str:
    """``--policy`` and ``--pull``. Raises ``InvalidArgument``."""
    if text is None:
        return default
    if text not in POLICIES:
        raise InvalidArgument(f'"{text}" is no pull policy', hint=f"possible are {', '.join(POLICIES)}")
    return text


def read_platform(options: Options) -> Platform | None:
    """``--platform``, or ``--os``, ``--arch`` and ``--variant``; None without. Raises ``InvalidArgument``."""
    text = options.value("platform")
    parts = [options.value(key) for key in ("os", "arch", "variant")]
    if text is None and not any(parts):
        return None
    from usercontainerd.oci.platform import parse_platform, plan_platform

    if text is None:
        return plan_platform(os.uname().machine, *parts)
    if any(parts):
        raise InvalidArgument("--platform does not go together with --os, --arch and --variant")
    return parse_platform(text)


def read_retry(options: Options) -> Retry | None:
    """``--retry`` and ``--retry-delay``. Raises ``InvalidArgument``."""
    times, delay = options.value("retry"), options.value("retry-delay")
    if times is None and delay is None:
        return None
    from usercontainerd.base.times import parse_duration
    from usercontainerd.engine.transfers.retrying import Retry

    if times is not None and not (times.isascii() and times.isdecimal() and int(times) <= 1000):
        raise InvalidArgument(f'--retry is a number, not "{times}"')
    return Retry(3 if times is None else int(times), None if delay is None else parse_duration(delay))


VERBS = {"pull": (PULL, run_pull)}
