"""The configuration of an image: OCI config.md, and Docker's Healthcheck, Shell and OnBuild."""

from __future__ import annotations

from usercontainerd.base.records import dataclass
from usercontainerd.base.typedjson import JsonValue, parse_json
from usercontainerd.oci.digest import Digest, parse_digest
from usercontainerd.oci.manifest import MAX_LAYERS, MAX_MANIFEST
from usercontainerd.oci.platform import Platform

MAX_CONFIGURATION = MAX_MANIFEST


@dataclass(frozen=True)
class Healthcheck:
    """Docker's HEALTHCHECK; times in seconds, None or 0 as the default."""

    test: tuple[str, ...]
    interval: float = 0.0
    timeout: float = 0.0
    start_period: float = 0.0
    start_interval: float = 0.0
    retries: int = 0


@dataclass(frozen=True)
class History:
    """How one layer, or a change without a layer, came to be."""

    created: str = ""
    created_by: str = ""
    comment: str = ""
    author: str = ""
    empty_layer: bool = False


@dataclass(frozen=True)
class ImageConfiguration:
    """What an image says about how to run it. ``entrypoint`` and ``command`` are None if it is silent."""

    platform: Platform
    diff_ids: tuple[Digest, ...]
    environment: tuple[tuple[str, str], ...] = ()
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    user: str = ""
    working_directory: str = ""
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    stop_signal: str = ""
    shell: tuple[str, ...] = ()
    on_build: tuple[str, ...] = ()
    healthcheck: Healthcheck | None = None
    created: str = ""
    author: str = ""
    docker_version: str = ""
    history: tuple[History, ...] = ()


def parse_image_configuration(data: bytes, *, where: str | None = None) -> ImageConfiguration:
    """Parse an image configuration. Raises ``InvalidFormat`` naming the place."""
    document = parse_json(data, "config", limit=MAX_CONFIGURATION, source=where)
    config = document.get("config")
    if config.is_null:
        config = JsonValue({}, "config.config", where)
    rootfs = document.get("rootfs")
    kind = rootfs.get("type").text("layers")
    if kind != "layers":
        rootfs.get("type").fail(f"expected 'layers', found {kind[:80]!r}")
    return ImageConfiguration(
        platform=Platform(
            document.get("os").text("linux") or "linux",
            document.get("architecture").text(""),
            document.get("variant").text(""),
        ),
        diff_ids=tuple(
            parse_digest(value.text(), where=value.path)
            for value in rootfs.get("diff_ids").elements(limit=MAX_LAYERS)
        ),
        environment=_parse_environment(config.get("Env")),
        entrypoint=_parse_command(config.get("Entrypoint")),
        command=_parse_command(config.get("Cmd")),
        user=_clean(config.get("User")),
        working_directory=_clean(config.get("WorkingDir")),
        exposed_ports=tuple(key for key, _ in config.get("ExposedPorts").items()),
        volumes=tuple(key for key, _ in config.get("Volumes").items()),
        labels=config.get("Labels").text_map(),
        stop_signal=_clean(config.get("StopSignal")),
        shell=config.get("Shell").texts(),
        on_build=config.get("OnBuild").texts(),
        healthcheck=_parse_healthcheck(config.get("Healthcheck")),
        created=document.get("created").text(""),
        author=document.get("author").text(""),
        docker_version=document.get("docker_version").text(""),
        history=tuple(_parse_history(value) for value in document.get("history").elements()),
    )


def _clean(value: JsonValue) -> str:
    text = value.text("")
    # NUL ends a string for the kernel: what follows it would be checked but not used.
    if "\0" in text:
        value.fail("holds a NUL character")
    return text


def _parse_environment(value: JsonValue) -> tuple[tuple[str, str], ...]:
    result: dict[str, str] = {}
    for element in value.elements():
        name, _, content = _clean(element).partition("=")
        if name:
            result[name] = content
    return tuple(result.items())


def _parse_command(value: JsonValue) -> tuple[str, ...] | None:
    if value.is_null:
        return None
    # Very old images have a plain string here; docker takes it as one word.
    if isinstance(value.raw, str):
        return (_clean(value),)
    return tuple(_clean(element) for element in value.elements()) or None


def _parse_healthcheck(value: JsonValue) -> Healthcheck | None:
    if value.is_null or value.get("Test").is_null:
        return None

    def seconds(key: str) -> float:
        return value.get(key).integer(0) / 1e9

    return Healthcheck(
        test=value.get("Test").texts(),
        interval=seconds("Interval"),
        timeout=seconds("Timeout"),
        start_period=seconds("StartPeriod"),
        start_interval=seconds("StartInterval"),
        retries=value.get("Retries").integer(0),
    )


def _parse_history(value: JsonValue) -> History:
    return History(
        created=value.get("created").text(""),
        created_by=value.get("created_by").text(""),
        comment=value.get("comment").text(""),
        author=value.get("author").text(""),
        empty_layer=value.get("empty_layer").boolean(),
    )
