"""ps and images: what a line shows."""

from __future__ import annotations

from usercontainerd.cli.images import describe_name, is_meant, parse_created
from usercontainerd.cli.output import render_table, truncate
from usercontainerd.cli.ps import describe_container, format_status
from usercontainerd.engine.containers import Container, State
from usercontainerd.oci.digest import Digest
from usercontainerd.runtime.summary import ExitRecord, Summary
from usercontainerd.store.images import ImageRecord, NameRecord

NOW = 1_700_000_000.0
SUMMARY = Summary(
    image="localhost/web:1",
    image_id="sha256:" + "ab" * 32,
    command="/bin/serve --with many arguments",
    ports="0.0.0.0:8080->80/tcp",
    network="pasta",
    labels=[("a", "b")],
)


def container(state: str, **others: object) -> Container:
    return Container("web", state, SUMMARY, created=NOW - 7200, **others)  # type: ignore[arg-type]


def test_status() -> None:
    ended = ExitRecord("exit-code", 7, NOW - 90, NOW - 60)
    for each, expected in (
        (container(State.RUNNING, started=NOW - 180), "Up 3 minutes"),
        (container(State.RUNNING), "Up"),
        (container(State.RUNNING, started=NOW + 50), "Up Less than a second"),  # the clock was set
        (container(State.EXITED, exit=ended), "Exited (7) About a minute ago"),
        (container(State.CREATED), "Created"),
        (container(State.STARTING), "Starting"),
        (container(State.FAILED), "Failed"),
        (container(State.INVALID), "Invalid definition"),
    ):
        assert format_status(each, NOW) == expected


def test_fields_of_a_container() -> None:
    shown = describe_container(container(State.RUNNING, started=NOW - 3), NOW, full=False)
    assert shown["Command"] == "/bin/serve --with m…"
    assert len(shown["ID"]) == 12 and len(shown["ImageID"]) == 12
    assert (shown["RunningFor"], shown["Labels"], shown["Unit"]) == (
        "2 hours ago",
        "a=b",
        "container@web.service",
    )
    full = describe_container(container(State.RUNNING), NOW, full=True)
    assert full["Command"] == SUMMARY.command
    assert len(full["ID"]) == 64 and full["ID"].startswith(shown["ID"])


def test_tables_are_aligned_and_printable() -> None:
    assert (
        render_table(("A", "B"), [("x", "1"), ("longer\n", "")]) == "A          B\nx          1\nlonger\\n\n"
    )
    assert render_table((), []) == ""
    assert render_table(("A",), []) == "A\n"
    assert truncate("abcdef", 4) == "abc…" and truncate("abcd", 4) == "abcd"


def test_fields_of_an_image() -> None:
    manifest, image = Digest("sha256:" + "11" * 32), Digest("sha256:" + "22" * 32)
    name = NameRecord("docker.io/library/nginx:1.27", image, [manifest])
    record = ImageRecord(
        image, manifest=manifest, layers=[], size=2_024_758, created="2023-11-14T22:13:20.5Z", platform="linux/amd64",
        pulled=0, names=[name],
    )  # fmt: skip
    shown = describe_name(record, name, NOW + 120, full=False)
    assert (shown["Repository"], shown["Tag"], shown["ID"]) == ("docker.io/library/nginx", "1.27", "22" * 6)
    assert (shown["CreatedSince"], shown["Size"], shown["Digest"]) == ("2 minutes ago", "2.02 MB", manifest)
    nameless = describe_name(record, None, NOW, full=True)
    assert (nameless["Repository"], nameless["Tag"], nameless["ID"]) == ("<none>", "<none>", str(image))
    for text, meant in (
        ("nginx", True), ("library/nginx", True), ("docker.io/library/nginx:1.27", True), ("nginx:1.26", False),
        ("ginx", False), ("localhost:5000/nginx", False),
    ):  # fmt: skip
        assert is_meant(shown, text) is meant, text


def test_times_of_images() -> None:
    assert parse_created("2023-11-14T22:13:20Z") == NOW
    assert parse_created("2023-11-14T22:13:20.123456789Z") == NOW
    assert parse_created("2023-11-14T23:13:20+01:00") == NOW
    assert parse_created("0001-01-01T00:00:00Z") < 0
    for broken in ("", "yesterday", "2023-11-14", "2023-11-14T25:99", "T", "\x1b"):
        assert parse_created(broken) == 0.0
