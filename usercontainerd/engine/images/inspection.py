"""Everything about an image, with podman's names."""

from __future__ import annotations

from usercontainerd.base.errors import UsercontainerError
from usercontainerd.engine.images.family import ImageFamily
from usercontainerd.engine.images.local import find_image, open_images
from usercontainerd.oci.manifest import Manifest, parse_manifest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from usercontainerd.engine.context import Context
    from usercontainerd.oci.image import Healthcheck, History, ImageConfiguration
    from usercontainerd.store.images import ImageStore
    from usercontainerd.store.records import ImageRecord


def inspect_image(context: Context, text: str) -> dict[str, Any] | None:
    """Return the image that ``text`` means as an object, None if there is none."""
    record = find_image(context, text)
    if record is None:
        return None
    images = open_images(context)
    parent = ImageFamily(images, images.all()).find_parent(record)
    manifest = read_manifest(images, record)
    return {
        **describe_image(record, images.configuration(record)),
        "Parent": "" if parent is None else parent.id.hex,
        "Annotations": {} if manifest is None else dict(manifest.annotations),
        "ManifestType": "" if manifest is None else manifest.media_type,
        "GraphDriver": describe_driver([images.layers.directory(layer) for layer in record.layers]),
    }


def read_manifest(images: ImageStore, record: ImageRecord) -> Manifest | None:
    """Return the manifest by which an image was pulled; None if the store is damaged there."""
    try:
        document = parse_manifest(images.blobs.read(record.manifest), None)
    except UsercontainerError:
        return None
    return document if isinstance(document, Manifest) else None


def describe_driver(directories: list[str]) -> dict[str, Any]:
    """Where the layers are, lowest first, as podman tells it of its own. Pure."""
    unique = [*dict.fromkeys(reversed(directories))]
    data = {"UpperDir": unique[0]} if unique else {}
    if len(unique) > 1:
        data["LowerDir"] = ":".join(unique[1:])
    return {"Name": "overlay", "Data": data}


def describe_image(record: ImageRecord, image: ImageConfiguration) -> dict[str, Any]:
    """What the image itself says. Pure."""
    names = [name.reference for name in record.names]
    digests = [(name.reference.name, digest) for name in record.names for digest in name.digests]
    return {
        "Id": record.id.hex,
        "Digest": str(record.manifest),
        "RepoTags": [str(name) for name in names if name.tag],
        "RepoDigests": list(dict.fromkeys(f"{name}@{digest}" for name, digest in digests)),
        "Comment": image.history[-1].comment if image.history else "",
        "Created": record.created,
        "Config": describe_config(image),
        "Version": image.docker_version,
        "Author": image.author,
        "Architecture": image.platform.architecture,
        "Variant": image.platform.variant,
        "Os": image.platform.os,
        "Size": record.size,
        "VirtualSize": record.size,
        "RootFS": {"Type": "layers", "Layers": [str(layer) for layer in record.layers]},
        "Labels": dict(image.labels),
        "User": image.user,
        "History": [describe_step(step) for step in image.history],
        "NamesHistory": record.name_history,
        "HealthCheck": describe_healthcheck(image.healthcheck),
    }


def describe_config(image: ImageConfiguration) -> dict[str, Any]:
    """docker's ``Config`` of an image. Pure."""
    return {
        "User": image.user,
        "Env": [f"{name}={value}" for name, value in image.environment],
        "Entrypoint": None if image.entrypoint is None else list(image.entrypoint),
        "Cmd": None if image.command is None else list(image.command),
        "WorkingDir": image.working_directory,
        "ExposedPorts": {port: {} for port in image.exposed_ports},
        "Volumes": {volume: {} for volume in image.volumes},
        "Labels": dict(image.labels),
        "StopSignal": image.stop_signal,
        "Shell": list(image.shell),
        "OnBuild": list(image.on_build),
    }


def describe_step(step: History) -> dict[str, Any]:
    """One entry of the history, without what it is silent about. Pure."""
    shown = {
        "created": step.created,
        "created_by": step.created_by,
        "author": step.author,
        "comment": step.comment,
        "empty_layer": step.empty_layer,
    }
    return {key: value for key, value in shown.items() if value}


def describe_healthcheck(check: Healthcheck | None) -> dict[str, Any] | None:
    """docker's ``Healthcheck``, times in nanoseconds; what is not said is left out. Pure."""
    if check is None:
        return None
    times = {
        "Interval": check.interval,
        "Timeout": check.timeout,
        "StartPeriod": check.start_period,
        "StartInterval": check.start_interval,
    }
    return {
        "Test": list(check.test),
        **{key: round(seconds * 1e9) for key, seconds in times.items() if seconds},
        **({"Retries": check.retries} if check.retries else {}),
    }
