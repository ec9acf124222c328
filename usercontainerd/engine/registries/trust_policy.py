"""``image trust``: the signature policy as lines, and changing one scope of it.

What is changed is the user's own policy.json, which the first change makes as a copy of the one in force.
"""

from __future__ import annotations

import json
import os

from usercontainerd.base.errors import HostError, InvalidArgument, InvalidReference, UsercontainerError
from usercontainerd.base.records import dataclass
from usercontainerd.engine.registries.admission import list_home_configs
from usercontainerd.kernel.atomicfile import write_atomic
from usercontainerd.oci.reference import parse_reference
from usercontainerd.trust.gpg import Keyring, find_gpg
from usercontainerd.trust.lookaside import LookasideConfiguration, lookaside_directories, read_lookaside
from usercontainerd.trust.policy import (
    AcceptAnything,
    Keys,
    Policy,
    Reject,
    SignedBy,
    SigstoreSigned,
    Unsupported,
    parse_policy,
    policy_files,
    read_policy,
    read_policy_file,
)
from usercontainerd.trust.rejection import SignatureRejected

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from usercontainerd.engine.context import Context
    from usercontainerd.trust.policy import Requirement

DEFAULT = "default"
KINDS = ("signedBy", "sigstoreSigned", "accept", "reject")
# As podman calls them; a registry is a repository.
_TRANSPORTS = {"docker": "repository"}
_TYPES = {AcceptAnything: "accept", Reject: "reject", SignedBy: "signed", SigstoreSigned: "sigstoreSigned"}


@dataclass(frozen=True)
class TrustLine:
    """One requirement: where it holds, what it wants, whose keys it names, where signatures are looked for."""

    transport: str
    scope: str
    kind: str
    keys: str
    storage: str


def find_policy_file(context: Context) -> str:
    """Return the file that is in force. Raises ``PullDenied`` if there is none, ``InvalidFormat``, ``HostError``."""
    return read_policy(policy_files(list_home_configs(context))).path


def list_trust(context: Context, policy: Policy) -> list[TrustLine]:
    """Return the policy line by line: the default, then transports and scopes in alphabetical order."""
    lookaside = read_lookaside(lookaside_directories(list_home_configs(context)), context.home)
    return [
        TrustLine(
            transport,
            scope,
            _TYPES.get(type(requirement), "unsupported"),
            _describe_keys(context, requirement),
            _find_storage(lookaside, transport, scope),
        )
        for transport, scope, requirements in _walk(policy)
        for requirement in requirements
    ]


def _walk(policy: Policy) -> Iterator[tuple[str, str, Sequence[Requirement]]]:
    yield "all", DEFAULT, policy.default
    for transport in sorted(policy.transports, key=lambda name: _TRANSPORTS.get(name, name)):
        for scope in sorted(policy.transports[transport]):
            requirements = policy.transports[transport][scope]
            yield _TRANSPORTS.get(transport, transport), scope, requirements


def _find_storage(lookaside: LookasideConfiguration, transport: str, scope: str) -> str:
    if transport == "repository" and scope in lookaside.sections:
        section = lookaside.sections[scope]
        if section.lookaside is not None:
            return section.lookaside
    return lookaside.default.lookaside or ""


def _describe_keys(context: Context, requirement: Requirement) -> str:
    """The owners of GPG keys by their own words, "N/A" for keys that name none."""
    if isinstance(requirement, SigstoreSigned):
        return "N/A"
    if isinstance(requirement, Unsupported):
        return requirement.what
    if not isinstance(requirement, SignedBy):
        return ""
    try:
        return ", ".join(_list_owners(context, requirement.keys))
    except (UsercontainerError, SignatureRejected):
        return "unknown"


def _list_owners(context: Context, keys: Keys) -> list[str]:
    program = find_gpg(dict(context.environment).get("PATH", os.defpath))
    with Keyring(keys.read(), program=program) as keyring:
        users = keyring.list_users()
    # The address alone, as podman shows it.
    return [user.rpartition("<")[2].removesuffix(">") if user.endswith(">") else user for user in users]


def set_trust(
    context: Context, scope: str, kind: str, key_files: Sequence[str], *, path: str | None = None
) -> str:
    """Set what holds for ``scope`` of registries, or for ``default``; return the file that says so now.

    Without ``path`` that is the user's own. Raises ``InvalidArgument``, ``InvalidFormat``, ``StoreError``…
    """
    requirements = build_requirements(kind, key_files)
    check_trust_scope(scope)
    own = path or policy_files(list_home_configs(context))[0]
    try:
        os.makedirs(os.path.dirname(os.path.abspath(own)), exist_ok=True)
    except OSError as error:
        raise HostError(f"cannot be made: {error.strerror}", where=os.path.dirname(own)) from error
    document = _read_document(context, own, path)
    if scope == DEFAULT:
        document[DEFAULT] = requirements
    elif DEFAULT not in document:
        raise InvalidArgument("the policy has no default yet", where=own, hint="set `default` first")
    else:
        document.setdefault("transports", {}).setdefault("docker", {})[scope] = requirements
    data = json.dumps(document, indent=4, ensure_ascii=False).encode() + b"\n"
    parse_policy(data, own)
    write_atomic(os.path.realpath(own), data, mode=0o644)
    return own


def _read_document(context: Context, own: str, path: str | None) -> dict[str, Any]:
    """The policy to change: the user's own, else a copy of the one in force."""
    source = own
    if not os.path.lexists(own):
        if path is not None:
            return {}
        files = [file for file in policy_files(list_home_configs(context)) if os.path.lexists(file)]
        if not files:
            return {}
        source = files[0]
    data = read_policy_file(source)
    parse_policy(data, source)
    document: dict[str, Any] = json.loads(data)
    return document


def build_requirements(kind: str, key_files: Sequence[str]) -> list[dict[str, str]]:
    """The requirements of a kind of trust, one for each key. Raises ``InvalidArgument``."""
    if kind not in KINDS:
        raise InvalidArgument(f'"{kind}" is no type of trust', hint=f"possible are {', '.join(KINDS)}")
    if kind in ("accept", "reject"):
        if key_files:
            raise InvalidArgument(f"--pubkeysfile does not go with --type {kind}")
        return [{"type": "insecureAcceptAnything" if kind == "accept" else "reject"}]
    if not key_files:
        raise InvalidArgument(f"--type {kind} needs a key", hint="--pubkeysfile FILE")
    requirements = []
    for file in key_files:
        if not os.access(file, os.R_OK):
            raise InvalidArgument("there is no such file, or you may not read it", where=file)
        key_type = {"keyType": "GPGKeys"} if kind == "signedBy" else {}
        requirements.append({"type": kind, **key_type, "keyPath": os.path.abspath(file)})
    return requirements


def check_trust_scope(scope: str) -> None:
    """Raise ``InvalidArgument`` for what would never match: a short name, a URL. Pure."""
    if scope == DEFAULT:
        return
    name = scope.removeprefix("*.") if "/" not in scope else scope
    try:
        # A host or a namespace is no reference yet; a repository below it makes it one.
        is_image = "/" in name and (":" in name.rpartition("/")[2] or "@" in name)
        whole = name if is_image else f"{name}/x/x"
        reference = parse_reference(whole)
    except InvalidReference:
        reference = None
    if reference is None or reference.is_short or str(reference) != whole:
        raise InvalidArgument(
            f"{scope!r} is not a registry, namespace, repository or image by its full name",
            hint="such as docker.io, docker.io/library/busybox, *.example.com or default",
        )
