"""Use case: is the store whole, and if not, make it so. Safe while other processes pull, run and remove."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack

from usercontainerd.base.errors import StoreError, UsercontainerError
from usercontainerd.base.names import is_container_name
from usercontainerd.engine.definitions import read_definition
from usercontainerd.engine.images.layer_checking import Identity, examine_layers, identify
from usercontainerd.engine.images.local import empty_trash, find_image, open_images
from usercontainerd.store.blobs import MAX_BLOB
from usercontainerd.store.checking import StoreCheck
from usercontainerd.store.examination import examine_blob
from usercontainerd.store.findings import Finding, Severity
from usercontainerd.store.tidiness import check_directories, check_leftovers, sweep_locks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from usercontainerd.engine.context import Context
    from usercontainerd.oci.digest import Digest
    from usercontainerd.store.images import ImageStore

DEFAULT_MAX_AGE = 24 * 3600.0  # seconds, as podman's


def ignore_report(_layer: str, _number: int, _all: int) -> None:
    """The report of those who do not care."""


def check_store(
    context: Context,
    *,
    quick: bool = False,
    repair: bool = False,
    max_age: float = DEFAULT_MAX_AGE,
    report: Callable[[str, int, int], None] = ignore_report,
) -> list[Finding]:
    """Return what is wrong with the user's store; with ``repair``, mend it.

    ``quick`` leaves out what reads every file. What nothing needs is reported once it is ``max_age`` seconds old.
    ``report`` is told each layer before its files are looked at, its number (from 0) and how many there are.
    Raises ``StoreError`` where the store cannot be looked at, or with ``repair`` written to.
    """
    images = open_images(context)
    store = images.store
    if not os.path.isdir(store.root):
        return []
    findings = check_directories(store)
    if repair:
        _mend(findings)
        store.prepare()
    layers = examine_layers(context, images, quick=quick, report=report)
    blobs = {} if quick else examine_large_blobs(images)
    now = time.time()
    with ExitStack() as stack:
        try:
            stack.enter_context(images.lock())
        except StoreError:
            if repair:
                raise
            # Nobody can write there, us included: nothing changes either.
        changed = layers.list_changed(images)
        bad = {
            digest: reason for digest, (reason, seen) in blobs.items() if identify(store.blob(digest)) == seen
        }
        found = StoreCheck(images, now=now, max_age=max_age, changed=changed, bad_blobs=bad).run()
        found += check_leftovers(store, now=now, max_age=max_age)
        if repair:
            _mend(found)
            images.layers.make_durable(dict.fromkeys(d for record in images.all() for d in record.layers))
    if repair:
        _empty_trash(context, found)
        sweep_locks(store)
    return [*findings, *found, *layers.notes, *_check_containers(context)]


def examine_large_blobs(images: ImageStore) -> dict[Digest, tuple[str, Identity]]:
    """Read the blobs that are too large to be read under a lock; return those that are wrong, and which file it was."""
    bad = {}
    for digest in images.blobs.all():
        path = images.store.blob(digest)
        seen = identify(path)
        if seen is not None and os.path.getsize(path) > MAX_BLOB:
            reason = examine_blob(path, digest, deep=True)
            if reason:
                bad[digest] = (reason, seen)
    return bad


def _mend(findings: list[Finding]) -> None:
    for finding in findings:
        finding.mend()


def _empty_trash(context: Context, findings: list[Finding]) -> None:
    empty_trash(context)
    trash = open_images(context).store.trash
    for finding in findings:
        if finding.kind == "trash":
            finding.repaired = not os.listdir(trash)
            finding.problem = "" if finding.repaired else "not all of it can be deleted"


def _check_containers(context: Context) -> list[Finding]:
    """Tell which containers made by ``create`` will pull their image anew: worth knowing before going offline."""
    findings = []
    directory = context.paths.created_definitions
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
    for file in names:
        name = file.removesuffix(".toml")
        if name == file or not is_container_name(name):
            continue
        try:
            image = read_definition(context, name).definition.image
            if find_image(context, image) is not None:
                continue
            what = f"the image {image} of the container {name} is not here"
            repair = f"its next start pulls it, as does `usercontainer pull {image}`"
        except UsercontainerError as error:
            what, repair = f"the container {name} cannot be used: {error}", f"usercontainer rm {name}"
        findings.append(Finding("container", Severity.NOTE, what, f"{directory}/{file}", repair=repair))
    return findings
