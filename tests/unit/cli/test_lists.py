"""ps and images: what a line shows."""

from __future__ import annotations

import pytest

from usercontainerd.base.errors import InvalidArgument
from usercontainerd.cli import ps
from usercontainerd.cli.disk_usage import describe_total
from usercontainerd.cli.image_tree import render_tree
from usercontainerd.cli.images import describe_name, sort_lines
from usercontainerd.cli.output import render_table, truncate
from usercontainerd.cli.ps import describe_container, format_status
from usercontainerd.engine.containers.listing import Container, State
from usercontainerd.engine.disk_usage import ContainerUsage, DiskUsage, VolumeUsage
from usercontainerd.engine.images.tree import LayerNode
from usercontainerd.oci.digest import Digest
from usercontainerd.oci.patterns import is_named
from usercontainerd.runtime.summary import ExitRecord, Summary
from usercontainerd.store.records import ImageRecord, NameRecord

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


def test_order_of_images() -> None:
    def record(digits: str, created: str, size: int, *names: str) -> ImageRecord:
        image = Digest("sha256:" + digits * 32)
        return ImageRecord(
            image, manifest=image, layers=[], size=size, created=created, platform="", pulled=0,
            names=[NameRecord(name, image, []) for name in names],
        )  # fmt: skip

    old = record("aa", "2020-01-01T00:00:00Z", 5, "localhost/b:2", "localhost/b:1")
    new = record("bb", "2021-01-01T00:00:00Z", 9, "localhost/a:3")
    nameless = record("cc", "", 7)
    lines = [(each, name) for each in (old, new, nameless) for name in each.names or (None,)]

    def order(field: str) -> str:
        return " ".join((name.name[-3:] if name else "-") for _, name in sort_lines(lines, field))

    assert order("created") == "a:3 b:2 b:1 -"
    assert order("id") == "b:2 b:1 a:3 -"
    assert order("repository") == "- a:3 b:1 b:2"
    assert order("size") == "b:2 b:1 - a:3"
    assert order("tag") == "b:1 b:2 a:3 -"
    with pytest.raises(InvalidArgument, match="possible are created, id"):
        sort_lines(lines, "name")


def test_patterns_of_names() -> None:
    name = "docker.io/library/nginx:1.27"
    for pattern, meant in (
        ("nginx", True), ("library/nginx", True), (name, True), ("nginx:1.26", False), ("nginx:1.27", True),
        ("ginx", False), ("localhost:5000/nginx", False), ("*ginx", True), ("ngin?:1*", True), ("docker.io/*", False),
        ("docker.io/*/*", True), ("*", True), ("n[a-h]inx", True), ("[", False), ("", False),
    ):  # fmt: skip
        assert is_named(name, pattern) is meant, pattern
    by_digest = f"localhost:5000/app@sha256:{'ab' * 32}"
    assert (
        is_named(by_digest, "app")
        and is_named(by_digest, "localhost:5000/app")
        and is_named(by_digest, by_digest)
    )
    assert not is_named(by_digest, "localhost:5000") and is_named("localhost:5000/app:1", "app:1")


def test_trees_are_drawn() -> None:
    def node(digits: str, *above: LayerNode, top_of: tuple[str, ...] = ()) -> LayerNode:
        made = LayerNode(Digest("sha256:" + digits * 32), 1234, top_of)
        made.above.extend(above)
        return made

    tree = node("aa", node("bb", node("cc")), node("dd", top_of=("x:1", "y:2")), top_of=("\x1b[0m",))
    assert render_tree([tree, node("ee")]) == (
        "Image Layers\n"
        "├── ID: aaaaaaaaaaaa Size: 1.234kB Top Layer of: [\\x1b[0m]\n"
        "│   ├── ID: bbbbbbbbbbbb Size: 1.234kB\n"
        "│   │   └── ID: cccccccccccc Size: 1.234kB\n"
        "│   └── ID: dddddddddddd Size: 1.234kB Top Layer of: [x:1 y:2]\n"
        "└── ID: eeeeeeeeeeee Size: 1.234kB\n"
    )
    assert render_tree([]) == "No Image Layers\n"


def test_totals_of_disk_usage() -> None:
    idle, busy = (
        ContainerUsage(container(state), size, 0) for state, size in ((State.EXITED, 30), (State.RUNNING, 70))
    )
    usage = DiskUsage(
        [], [idle, busy], [VolumeUsage("a", 1, 5), VolumeUsage("b", 0, 7)], image_size=0, image_reclaimable=0
    )
    shown = [describe_total(total) for total in usage.sum_up()]
    assert [(each["Total"], each["Active"], each["Size"], each["Reclaimable"]) for each in shown] == [
        (0, 0, "0B", "0B (0%)"), (2, 1, "100B", "30B (30%)"), (2, 1, "12B", "7B (58%)"),
    ]  # fmt: skip
    stopped = DiskUsage([], [], [], image_size=0, image_reclaimable=0, partials=([10], [20, 30]))
    assert describe_total(stopped.sum_up()[3]) == {
        "Type": "Partial Downloads", "Total": 3, "TotalCount": 3, "Active": 1,
        "RawSize": 60, "RawReclaimable": 50, "Size": "60B", "Reclaimable": "50B (83%)",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["x", "--5", "-", "", "1.5"])
def test_no_number_of_containers(text: str) -> None:
    with pytest.raises(InvalidArgument, match="is no number"):
        ps._parse_count(text)
    assert (ps._parse_count("3"), ps._parse_count("-1"), ps._parse_count(None)) == (3, -1, -1)
