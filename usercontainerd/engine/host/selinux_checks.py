"""``doctor``: SELinux, and whether the store has the labels that packaging/selinux gives it (docs/selinux.md).

Labels are read from the extended attribute ``security.selinux``, and what the policy says from its text files:
libselinux is not needed.
"""

from __future__ import annotations

import os
import shlex

from usercontainerd.engine.host.doctor import Finding, fine, lost, read_text, suggest_installation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from usercontainerd.engine.context import Context

ATTRIBUTE = "security.selinux"
CONFIGURATION = "/etc/selinux/config"
PACKAGE = "usercontainerd-selinux"
READ_ONLY, WRITABLE = "container_ro_file_t", "container_file_t"
# By directory of the store. The store's own type is not here: it matters to nobody what of the user's it is.
TYPES = {
    "layers": READ_ONLY,
    "tmp": READ_ONLY,
    "trash": READ_ONLY,
    "containers": READ_ONLY,
    "volumes": WRITABLE,
}
# What in each of these directories is looked at, too.
_INSIDE = {"layers": "diff", "volumes": "_data"}


def check_selinux(context: Context) -> Iterator[Finding]:
    """Whether SELinux is in force, and the labels of the store."""
    enforce = read_text("/sys/fs/selinux/enforce")
    state = {"1": "enforcing", "0": "permissive"}.get(enforce or "", "not enabled")
    if enforce == "1":
        yield lost("selinux", state, "it does not confine containers: they are given no labels yet", "")
    else:
        yield fine("selinux", state)
    if enforce in ("0", "1"):
        store = os.path.realpath(context.paths.data)
        home = os.path.realpath(os.path.expanduser(f"~{context.user}"))
        yield judge_labels(
            read_labels(store), store, f"{home}/.local/share/usercontainerd", has_policy=has_policy()
        )


def read_labels(store: str) -> dict[str, str]:
    """The types of what of the store is there, by path below it; an empty one where there is no label."""
    found = {}
    for directory in TYPES:
        for path in (directory, *_list_inside(store, directory)):
            try:
                found[path] = parse_type(os.getxattr(f"{store}/{path}", ATTRIBUTE))
            except FileNotFoundError:
                continue
            except OSError:
                found[path] = ""
    return found


def _list_inside(store: str, directory: str) -> list[str]:
    if directory not in _INSIDE:
        return []
    try:
        names = sorted(os.listdir(f"{store}/{directory}"))
    except OSError:
        return []
    return [f"{directory}/{name}/{_INSIDE[directory]}" for name in names]


def parse_type(label: bytes) -> str:
    """The type in a label, ``user:role:type:level`` and maybe a NUL. Pure."""
    parts = label.rstrip(b"\0").decode("utf-8", "replace").split(":")
    return parts[2] if len(parts) > 2 else ""


def has_policy() -> bool:
    """Tell whether the policy that is in force knows our store: by the module, or by the administrator's own rules."""
    values = dict(line.partition("=")[::2] for line in (read_text(CONFIGURATION) or "").splitlines())
    directory = f"/etc/selinux/{values.get('SELINUXTYPE', 'targeted').strip()}/contexts/files"
    return any(_has_rule(f"{directory}/file_contexts.{kind}") for kind in ("homedirs", "local"))


def _has_rule(path: str) -> bool:
    try:
        # Hundreds of kilobytes where there are many users: read_text would cut it.
        with open(path, encoding="utf-8", errors="replace") as file:
            return any(READ_ONLY in line and "layers" in line for line in file if "usercontainerd" in line)
    except OSError:
        return False


def judge_labels(labels: Mapping[str, str], store: str, usual: str, *, has_policy: bool) -> Finding:
    """By the types of what is there; ``usual`` is where the policy expects the store. Pure but for os-release(5)."""
    wrong = [(path, found) for path, found in labels.items() if found != TYPES[path.partition("/")[0]]]
    name = "selinux labels"
    if not wrong and labels and not has_policy:
        return lost(
            name,
            "the store's are as they should be, but the policy has no rules for it",
            "whatever relabels files takes them away",
            plan_relabelling(store, usual, has_policy=False),
        )
    if not wrong:
        return fine(name, "the store's are as they should be" if labels else "there is no store yet")
    path, found = wrong[0]
    others = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    wanted = TYPES[path.partition("/")[0]]
    return lost(
        name,
        f"{store}/{path} is {found or 'not labelled'}, not {wanted}{others}",
        "processes that SELinux confines to containers cannot use images and volumes",
        plan_relabelling(store, usual, has_policy=has_policy),
    )


def plan_relabelling(store: str, usual: str, *, has_policy: bool) -> str:
    """The commands that give the store its labels. Pure but for os-release(5)."""
    place = shlex.quote(store)
    if not has_policy:
        install = suggest_installation(PACKAGE)
        if "dnf" in install:
            return f"{install} && sudo restorecon -R {place}"
        rules = [
            f"sudo semanage fcontext -a -t {kind} {shlex.quote(f'{escape_pattern(store)}/{names}(/.*)?')}"
            for kind, names in ((READ_ONLY, "(layers|tmp|trash|containers)"), (WRITABLE, "volumes"))
        ]
        return " && ".join((*rules, f"sudo restorecon -R {place}"))
    if store != usual:
        return f"sudo semanage fcontext -a -e {shlex.quote(usual)} {place} && sudo restorecon -R {place}"
    return f"sudo restorecon -R {place}"


def escape_pattern(path: str) -> str:
    """The path as a regular expression of file_contexts(5). Pure."""
    return "".join(f"\\{character}" if character in ".^$*+?()[]{}|\\" else character for character in path)


SELINUX_CHECKS = (check_selinux,)
