"""Which of the places that may have an image are asked, in which order: the meanings of a short name, mirrors of each.

A short name with several meanings is a question to the person at the terminal, as registries.conf(5) has it; the answer
is kept once its pull has succeeded. A mirror that fails in whatever way is passed over with a notice; the image has the
name that was asked for, wherever it came from.
"""

from __future__ import annotations

import os

from usercontainerd.base.errors import (
    DigestMismatch,
    InvalidFormat,
    InvalidReference,
    NoSuchImage,
    PullDenied,
    RegistryError,
    UsercontainerError,
)
from usercontainerd.base.records import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from usercontainerd.engine.context import Context
    from usercontainerd.engine.registries.access import RegistryAccess
    from usercontainerd.engine.registries.source import RegistrySource
    from usercontainerd.oci.reference import Reference
    from usercontainerd.registry.configuration import Endpoint, RegistriesConfiguration, Resolution

    Choose = Callable[[str, Sequence[str]], int]
    Result = TypeVar("Result")
    Attempt = Callable[[RegistrySource, Reference], Result]

_TRY_NEXT = (NoSuchImage, PullDenied, RegistryError)
_PASS_OVER = (*_TRY_NEXT, DigestMismatch, InvalidFormat)


def ignore_notice(_text: str, /) -> None:
    """The notices of those who do not care."""


@dataclass(frozen=True)
class Conversation:
    """With whoever called: ``choose`` takes a question and the choices and returns an index; None: nobody is there.

    ``notice`` is told what is good to know, in one line without a full stop.
    """

    choose: Choose | None = None
    notice: Callable[[str], object] = ignore_notice


SILENT = Conversation()


def choose_meaning(
    configuration: RegistriesConfiguration, reference: Reference, talk: Conversation = SILENT
) -> tuple[Resolution, bool]:
    """Return what to try for ``reference``, and whether that was chosen just now and is to be kept.

    Raises ``NoSuchImage`` if it means nothing, ``InvalidReference`` if it means several things and nobody can be
    asked although the mode is enforcing.
    """
    resolution = configuration.resolve(reference)
    if not resolution.short:
        return resolution, False
    if not resolution.candidates:
        raise NoSuchImage(
            f"{resolution.short!r} names no registry, and there are no {_SEARCH}",
            where=resolution.origin or None,
            hint=f"use a full name, such as docker.io/library/{reference}",
        )
    if resolution.by_alias:
        talk.notice(f"Resolved {resolution.short!r} as an alias ({resolution.origin})")
        return resolution, False
    from usercontainerd.registry.configuration import Resolution, ShortNameMode

    several = len(resolution.candidates) > 1
    if several and configuration.mode is not ShortNameMode.DISABLED:
        if talk.choose is not None:
            index = talk.choose(
                f"Which {resolution.short!r} do you mean?", [str(each) for each in resolution.candidates]
            )
            return Resolution((resolution.candidates[index],), resolution.short), True
        if configuration.mode is ShortNameMode.ENFORCING:
            raise InvalidReference(
                f"{resolution.short!r} can mean {', '.join(map(str, resolution.candidates))}, and there is no terminal "
                "to ask on",
                where=resolution.origin or None,
                hint="use a full name; short-name-mode is enforcing",
            )
    origin = resolution.origin or "no registries.conf"
    talk.notice(f"Resolving {resolution.short!r} using {_SEARCH} ({origin})")
    return resolution, False


_SEARCH = "unqualified-search registries"


def keep_meaning(context: Context, resolution: Resolution) -> None:
    """Let the short name mean from now on what was chosen. Raises ``StoreError``, ``InvalidFormat``."""
    from usercontainerd.registry.recorded_aliases import find_recorded_aliases, record_alias

    path = find_recorded_aliases(os.path.dirname(context.paths.cache))
    record_alias(path, resolution.short, resolution.candidates[0].name)


def try_candidates(
    context: Context,
    configuration: RegistriesConfiguration,
    candidates: Sequence[Reference],
    attempt: Attempt[Result],
    *,
    access: RegistryAccess,
    talk: Conversation = SILENT,
) -> Result:
    """``attempt`` each full name at each of its places until one succeeds; it closes the source that it gets.

    Raises what the only one has raised, or one error that has all of them.
    """
    failures: list[UsercontainerError] = []
    for candidate in candidates:
        try:
            endpoints = configuration.locate_all(candidate)
            return _try_endpoints(context, candidate, endpoints, attempt, access=access, talk=talk)
        except _TRY_NEXT as error:
            failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    absent = all(isinstance(failure, NoSuchImage) for failure in failures)
    text = "no registry has it: " + "; ".join(str(failure) for failure in failures)
    raise NoSuchImage(text) if absent else RegistryError(text)


def _try_endpoints(
    context: Context,
    candidate: Reference,
    endpoints: Sequence[Endpoint],
    attempt: Attempt[Result],
    *,
    access: RegistryAccess,
    talk: Conversation,
) -> Result:
    from usercontainerd.engine.registries.source import open_registry_source

    *mirrors, own = endpoints
    for mirror in mirrors:
        try:
            return attempt(open_registry_source(context, mirror, candidate, access), candidate)
        except _PASS_OVER as error:
            talk.notice(f"The mirror {mirror.reference.name} is passed over: {error}")
    return attempt(open_registry_source(context, own, candidate, access), candidate)
