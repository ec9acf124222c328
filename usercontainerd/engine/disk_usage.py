"""What the store takes on disk, and how much of it could be had back: ``system df``.

Of layers the sizes are those that were written down when they were unpacked, of writable layers and volumes they are
measured, inside the user namespace. What several images share is counted once.
"""

from __future__ import annotations

import os

from usercontainerd.engine.images.local import open_images, start_worker
from usercontainerd.engine.images.users import find_users
from usercontainerd.runtime.remains import layer_directory
from usercontainerd.store.partial import measure_partials

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from usercontainerd.engine.containers.listing import Container
    from usercontainerd.engine.context import Context
    from usercontainerd.store.images import ImageStore
    from usercontainerd.store.records import ImageRecord
    from usercontainerd.systemd.manager import Manager


class ImageUsage:
    """An image; ``shared`` bytes are those of parts that other images have, too. ``containers`` use it."""

    __slots__ = ("containers", "record", "shared", "unique")

    def __init__(self, record: ImageRecord, shared: int, unique: int, containers: int) -> None:
        self.record = record
        self.shared = shared
        self.unique = unique
        self.containers = containers


class ContainerUsage:
    """A container; ``size`` in bytes is that of its writable layer, ``volumes`` counts named ones."""

    __slots__ = ("container", "size", "volumes")

    def __init__(self, container: Container, size: int, volumes: int) -> None:
        self.container = container
        self.size = size
        self.volumes = volumes


class VolumeUsage:
    """A named volume; ``links`` counts the containers that have it, ``size`` in bytes."""

    __slots__ = ("links", "name", "size")

    def __init__(self, name: str, links: int, size: int) -> None:
        self.name = name
        self.links = links
        self.size = size


class Total:
    """One line of the overview; sizes in bytes."""

    __slots__ = ("active", "count", "kind", "reclaimable", "size")

    def __init__(self, kind: str, count: int, active: int, size: int, reclaimable: int) -> None:
        self.kind = kind
        self.count = count
        self.active = active
        self.size = size
        self.reclaimable = reclaimable


class DiskUsage:
    """Everything in detail, and ``image_size``, ``image_reclaimable``: parts of images, each counted once.

    ``partials`` are the sizes of what has come of images in part: what is coming just now, and what waits.
    """

    def __init__(
        self,
        images: Sequence[ImageUsage],
        containers: Sequence[ContainerUsage],
        volumes: Sequence[VolumeUsage],
        *,
        image_size: int,
        image_reclaimable: int,
        partials: tuple[Sequence[int], Sequence[int]] = ((), ()),
    ) -> None:
        self.images = images
        self.containers = containers
        self.volumes = volumes
        self.image_size = image_size
        self.image_reclaimable = image_reclaimable
        self.partials = partials

    def sum_up(self) -> list[Total]:
        """The overview. What a running container or any container's volume holds cannot be had back. Pure."""
        idle = [each for each in self.containers if not each.container.is_alive]
        busy, waiting = self.partials
        free = [each for each in self.volumes if not each.links]
        return [
            Total(
                "Images",
                len(self.images),
                sum(each.containers > 0 for each in self.images),
                self.image_size,
                self.image_reclaimable,
            ),
            Total(
                "Containers",
                len(self.containers),
                len(self.containers) - len(idle),
                sum(each.size for each in self.containers),
                sum(each.size for each in idle),
            ),
            Total(
                "Local Volumes",
                len(self.volumes),
                len(self.volumes) - len(free),
                sum(each.size for each in self.volumes),
                sum(each.size for each in free),
            ),
            *(
                [
                    Total(
                        "Partial Downloads",
                        len(busy) + len(waiting),
                        len(busy),
                        sum(busy) + sum(waiting),
                        sum(waiting),
                    )
                ]
                if busy or waiting
                else []
            ),
        ]


def measure_usage(context: Context, manager: Manager | None) -> DiskUsage:
    """Look at everything. ``manager`` tells what runs."""
    users = find_users(context, manager)
    images = open_images(context)
    parts = {record.id: measure_parts(images, record) for record in images.all()}
    holders: dict[str, int] = {}
    for each in parts.values():
        for path in each:
            holders[path] = holders.get(path, 0) + 1
    sizes = {path: size for each in parts.values() for path, size in each.items()}
    needed = {path for image_id, each in parts.items() if users.of(image_id) for path in each}
    image_usage = []
    for record in images.all():
        own = parts.get(record.id, {})
        shared = sum(size for path, size in own.items() if holders[path] > 1)
        image_usage.append(ImageUsage(record, shared, sum(own.values()) - shared, len(users.of(record.id))))
    layers = measure_trees(
        context,
        {each.name: layer_directory(context.paths.container_data(each.name)) for each in users.containers},
    )
    volumes = measure_trees(context, list_volumes(context))
    return DiskUsage(
        image_usage,
        [
            ContainerUsage(
                each, layers.get(each.name, 0), sum(name in volumes for name in each.summary.mounts)
            )
            for each in users.containers
        ],
        [
            VolumeUsage(name, sum(name in each.summary.mounts for each in users.containers), size)
            for name, size in sorted(volumes.items())
        ],
        image_size=sum(sizes.values()),
        image_reclaimable=sum(size for path, size in sizes.items() if path not in needed),
        partials=measure_partials(images.store),
    )


def measure_parts(images: ImageStore, record: ImageRecord) -> dict[str, int]:
    """The parts of an image by their paths, with their sizes: layers, recipes of layers, blobs."""
    blobs = {record.id, record.manifest, *(digest for name in record.names for digest in name.digests)}
    parts = {}
    for diff_id in record.layers:
        layer = images.layers.read(diff_id)
        if layer is None:
            continue
        directory = images.store.layer(diff_id)
        parts[directory] = layer.size + sum(
            measure_file(f"{directory}/{name}") for name in ("layer.json", "recipe")
        )
        blobs.update(blob.digest for blob in layer.blobs)
    for digest in blobs:
        path = images.store.blob(digest)
        if size := measure_file(path):
            parts[path] = size
    return parts


def measure_file(path: str) -> int:
    """The size of a file, 0 if there is none."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def list_volumes(context: Context) -> dict[str, str]:
    """The named volumes and where they are."""
    directory = f"{context.paths.data}/volumes"
    try:
        return {name: f"{directory}/{name}" for name in os.listdir(directory)}
    except (FileNotFoundError, NotADirectoryError):
        return {}


def measure_trees(context: Context, trees: Mapping[str, str]) -> dict[str, int]:
    """Measure directories, given by any keys; what does not exist is left out."""
    present = {key: path for key, path in trees.items() if os.path.isdir(path)}
    if not present:
        return {}
    base = os.path.commonpath([os.path.dirname(path) for path in present.values()])
    names = {key: os.path.relpath(path, base) for key, path in present.items()}
    with start_worker(context) as worker:
        sizes = worker.measure(base, _unique(names.values()))
    return {key: sizes[name] for key, name in names.items()}


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
