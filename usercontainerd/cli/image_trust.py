"""``usercontainer image trust show`` and ``… set``."""

from __future__ import annotations

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.cli.json_text import dump_json
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import render_table, write_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.cli.call import Call
    from usercontainerd.engine.registries.trust_policy import TrustLine

TRUST = Verb(
    "image trust",
    "show | set REGISTRY[/REPOSITORY]",
    "Show or set which images may come, and whose signatures they need",
    (
        Option("-j, --json", "show: an array of objects"),
        Option("-n, --noheading", "show: no headings"),
        Option("--policypath FILE", "another file than the policy.json in force, or your own"),
        Option("-f, --pubkeysfile FILE...", "set: a public key; with several, all must have signed"),
        Option("--raw", "show: the policy file as it is"),
        Option(
            "-t, --type TYPE",
            "set: signedBy (default), sigstoreSigned, accept or reject",
            ("signedBy", "sigstoreSigned", "accept", "reject"),
        ),
    ),
    fewest=1,
    most=2,
    details="`set default` sets what holds for everything else. What is set is your own policy.json in\n"
    "~/.config/containers, which podman and skopeo read, too.",
)


def run_trust(call: Call) -> int:
    """Find out which of the two."""
    action, *rest = call.words
    if action == "show" and not rest:
        return show_trust(call)
    if action == "set" and rest:
        from usercontainerd.engine.registries.trust_policy import set_trust

        set_trust(
            call.context(),
            rest[0],
            call.options.value("type") or "signedBy",
            call.options.values("pubkeysfile"),
            path=call.options.value("policypath"),
        )
        return 0
    raise InvalidArgument(
        "which is it to be?",
        hint="usercontainer image trust show, or usercontainer image trust set REGISTRY[/REPOSITORY]",
    )


def show_trust(call: Call) -> int:
    """Print the policy that is in force."""
    from usercontainerd.engine.registries.trust_policy import find_policy_file, list_trust
    from usercontainerd.trust.policy import parse_policy, read_policy_file

    context = call.context()
    path = call.options.value("policypath") or find_policy_file(context)
    data = read_policy_file(path)
    policy = parse_policy(data, path)
    if call.options.flag("raw"):
        write_output(data.decode("utf-8").rstrip("\n") + "\n")
        return 0
    lines = list_trust(context, policy)
    if call.options.flag("json"):
        write_output(dump_json([render_line(line) for line in lines], indent=2) + "\n")
        return 0
    headings = () if call.options.flag("noheading") else ("TRANSPORT", "NAME", "TYPE", "ID", "STORE")
    rows = [(line.transport, line.scope, line.kind, line.keys, line.storage) for line in lines]
    write_output(render_table(headings, rows))
    return 0


def render_line(line: TrustLine) -> dict[str, str]:
    """An object with podman's keys; what is empty is left out."""
    name = "* (default)" if line.transport == "all" else line.scope
    fields = {
        "transport": line.transport,
        "name": name,
        "repo_name": line.scope,
        "sigstore": line.storage,
        "type": line.kind,
        "gpg_id": line.keys,
    }
    return {key: value for key, value in fields.items() if value}


VERBS = {"image trust": (TRUST, run_trust)}
