"""``usercontainer verify``."""

from __future__ import annotations

from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import write_error, write_output
from usercontainerd.engine.verification import verify_all, verify_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.cli.call import Call
    from usercontainerd.definition.diagnostic import Diagnostic

VERIFY = Verb(
    "verify",
    "[FILE...]",
    "Report what is wrong with container definitions",
    (
        Option("--json", "print an array of objects with path, line, key, severity, message and suggestion"),
        Option("-q, --quiet", "print errors only, no warnings"),
    ),
    details="Without a FILE, all definitions that systemd would see, with their drop-ins. One problem a line:\n"
    "PATH:LINE: error: KEY: MESSAGE. The exit status is 1 if there is an error.",
)


def run_verify(call: Call) -> int:
    """Print every problem."""
    context = call.context()
    if call.words:
        problems = [problem for path in call.words for problem in verify_file(context, path)]
        count = len(call.words)
    else:
        count, problems = verify_all(context)
    failed = any(problem.is_error for problem in problems)
    if call.options.flag("quiet"):
        problems = [problem for problem in problems if problem.is_error]
    if call.options.flag("json"):
        write_output(render_json(problems))
    else:
        write_output("".join(f"{problem}\n" for problem in problems))
        if not problems and not call.options.flag("quiet"):
            write_error(f"{count} definition{'s' * (count != 1)} verified, no problem found\n")
    return 1 if failed else 0


def render_json(problems: list[Diagnostic]) -> str:
    """The problems as an array."""
    from usercontainerd.cli.json_text import dump_json

    keys = ("path", "line", "key", "severity", "message", "suggestion")
    return dump_json([{key: getattr(each, key) for key in keys} for each in problems], indent=4) + "\n"


VERBS = {"verify": (VERIFY, run_verify)}
