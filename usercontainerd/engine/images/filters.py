"""podman's filters of images: what ``images --filter`` and ``image prune --filter`` mean.

Of the kinds ``reference``, ``id`` and ``digest`` any value may match, of the others all must; ``KIND!=VALUE`` is the
opposite of ``KIND=VALUE``.
"""

from __future__ import annotations

import time

from usercontainerd.base.errors import InvalidArgument, NoSuchImage, UsercontainerError
from usercontainerd.base.times import parse_moment, parse_rfc3339
from usercontainerd.engine.images.family import ImageFamily
from usercontainerd.engine.images.local import find_image, open_images
from usercontainerd.oci.patterns import is_named
from usercontainerd.store.indexes import IndexStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from usercontainerd.engine.context import Context
    from usercontainerd.engine.images.users import ImageUsers
    from usercontainerd.store.records import ImageRecord

    Test = Callable[[ImageRecord], bool]

ANY_MATCHES = ("digest", "id", "reference")
PRUNE_KINDS = ("label", "until")
_TRUE = ("1", "t", "T", "true", "True", "TRUE")
_FALSE = ("0", "f", "F", "false", "False", "FALSE")


class ImageFilters:
    """Builds the tests; ``records`` are all images, ``find_users`` is asked only for ``containers``."""

    def __init__(
        self, context: Context, records: Sequence[ImageRecord], find_users: Callable[[], ImageUsers]
    ) -> None:
        self._context = context
        self._images = open_images(context)
        self._family = ImageFamily(self._images, records)
        self._find_users = find_users
        self._builders: dict[str, Callable[[str], Test]] = {
            "after": self._build_since,
            "before": self._build_before,
            "containers": self._build_containers,
            "dangling": self._build_dangling,
            "digest": self._build_digest,
            "id": self._build_id,
            "intermediate": self._build_intermediate,
            "label": self._build_label,
            "manifest": self._build_manifest,
            "readonly": self._build_never,
            "reference": self._build_reference,
            "since": self._build_since,
            "until": self._build_until,
        }

    def build(self, filters: Mapping[str, Sequence[str]], kinds: Sequence[str] = ()) -> Test:
        """Return the test that all filters make together. Raises ``InvalidArgument``, ``NoSuchImage``.

        Of ``kinds`` only these are possible.
        """
        tests = []
        for key, values in filters.items():
            kind = key.removesuffix("!")
            possible = kinds or tuple(self._builders)
            if kind not in possible:
                raise InvalidArgument(
                    f'there is no filter "{kind}"', hint=f"possible are {', '.join(possible)}"
                )
            tests.append(_join_tests(kind, [self._builders[kind](value) for value in values], key != kind))
        return lambda record: all(test(record) for test in tests)

    def _build_id(self, value: str) -> Test:
        digits = value.removeprefix("sha256:")
        return lambda record: record.id.hex.startswith(digits)

    def _build_digest(self, value: str) -> Test:
        def test(record: ImageRecord) -> bool:
            digests = [record.manifest, *(digest for name in record.names for digest in name.digests)]
            return any(digest.startswith(value) for digest in digests)

        return test

    def _build_dangling(self, value: str) -> Test:
        wanted = _parse_boolean("dangling", value)
        return lambda record: self._family.is_dangling(record) == wanted

    def _build_intermediate(self, value: str) -> Test:
        wanted = _parse_boolean("intermediate", value)
        return lambda record: self._family.is_intermediate(record) == wanted

    def _build_never(self, value: str) -> Test:
        """Nothing here is read-only."""
        wanted = _parse_boolean("filter", value)
        return lambda _: not wanted

    def _build_manifest(self, value: str) -> Test:
        wanted = _parse_boolean("manifest", value)
        indexes = set(IndexStore(self._images.store).list_ids())
        return lambda record: (record.id in indexes) == wanted

    def _build_containers(self, value: str) -> Test:
        wanted = _parse_boolean("containers", value)
        users = self._find_users()
        return lambda record: bool(users.of(record.id)) == wanted

    def _build_label(self, value: str) -> Test:
        name, equals, content = value.partition("=")

        def test(record: ImageRecord) -> bool:
            try:
                labels = dict(self._images.configuration(record).labels)
            except UsercontainerError:
                return False
            return name in labels and (not equals or labels[name] == content)

        return test

    def _build_reference(self, value: str) -> Test:
        try:
            found = find_image(self._context, value)
        except UsercontainerError:
            found = None  # a pattern, or an ID of several
        return lambda record: (
            (found is not None and found.id == record.id)
            or any(is_named(name.name, value) for name in record.names)
        )

    def _build_before(self, value: str) -> Test:
        limit = parse_rfc3339(self._find("before", value).created)
        return lambda record: parse_rfc3339(record.created) < limit

    def _build_since(self, value: str) -> Test:
        limit = parse_rfc3339(self._find("since", value).created)
        return lambda record: parse_rfc3339(record.created) > limit

    def _build_until(self, value: str) -> Test:
        limit = parse_moment(value, time.time())
        return lambda record: parse_rfc3339(record.created) < limit

    def _find(self, kind: str, value: str) -> ImageRecord:
        found = find_image(self._context, value)
        if found is None:
            raise NoSuchImage(f"--filter {kind}: there is no image {value!r} here")
        return found


def _join_tests(kind: str, tests: Sequence[Test], negated: bool) -> Test:
    choose = any if kind in ANY_MATCHES else all
    if negated:
        return lambda record: not any(test(record) for test in tests)
    return lambda record: choose(test(record) for test in tests)


def _parse_boolean(kind: str, value: str) -> bool:
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise InvalidArgument(f'--filter {kind}: "{value}" is neither true nor false')


def build_prune_test(context: Context, filters: Mapping[str, Sequence[str]]) -> Test:
    """Return the test of ``image prune --filter``. Raises ``InvalidArgument``."""
    from usercontainerd.engine.images.users import ImageUsers

    return ImageFilters(context, (), ImageUsers).build(filters, PRUNE_KINDS)
