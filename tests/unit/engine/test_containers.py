"""Finding containers and telling how they are, from files and systemd's words."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from usercontainerd.base.errors import InvalidArgument, NoSuchContainer, NotRunning
from usercontainerd.base.paths import Paths
from usercontainerd.engine.containers import listing as containers
from usercontainerd.engine.containers import lookup
from usercontainerd.engine.containers.listing import (
    State,
    derive_state,
    list_containers,
    select_containers,
    summary_cache,
)
from usercontainerd.engine.containers.lookup import (
    container_id,
    find_init,
    get_init,
    is_known,
    list_known,
    resolve_name,
)
from usercontainerd.runtime.plan import stamp_path
from usercontainerd.runtime.summary import ExitRecord, Summary, exit_file, render_exit, render_summary
from usercontainerd.systemd.manager import UnitStatus

ENDED = ExitRecord("exit-code", 7, 100.0, 200.0)
NEVER_RAN = ExitRecord("exit-code", 125, 0.0, 200.0)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    environment = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    made = Paths.from_environment(environment, 1000)
    for directory in (made.definition_directories[0], made.created_definitions, made.runtime):
        os.makedirs(directory)
    return made


def define(paths: Paths, name: str, text: str = 'image = "x"\n', *, created: bool = False) -> str:
    directory = paths.created_definitions if created else paths.definition_directories[0]
    path = f"{directory}/{name}.toml"
    Path(path).write_text(text)
    return path


def put_bundle(paths: Paths, name: str, summary: Summary, pid: int | None = None) -> None:
    os.makedirs(paths.bundle(name), exist_ok=True)
    Path(f"{paths.bundle(name)}/summary").write_text(render_summary(summary))
    if pid is not None:
        Path(f"{paths.bundle(name)}/pid").write_text(str(pid))


def unit(name: str, active: str, sub: str = "") -> UnitStatus:
    return UnitStatus((f"container@{name}.service", "", "loaded", active, sub, "", "/x", 0, "", "/"))


def refuse(name: str) -> Summary:
    raise AssertionError(f"{name} was summarised anew")


@pytest.mark.parametrize(
    ("active", "sub", "record", "expected"),
    [
        ("active", "running", None, State.RUNNING),
        ("reloading", "reload", None, State.RUNNING),
        ("activating", "start", None, State.STARTING),
        ("activating", "auto-restart", ENDED, State.RESTARTING),
        ("activating", "auto-restart-queued", ENDED, State.RESTARTING),
        ("deactivating", "stop-sigterm", None, State.STOPPING),
        ("inactive", "dead", None, State.CREATED),
        ("inactive", "dead", ENDED, State.EXITED),
        ("failed", "failed", ENDED, State.EXITED),
        ("failed", "failed", None, State.FAILED),
        ("failed", "failed", NEVER_RAN, State.FAILED),
        ("inactive", "dead", NEVER_RAN, State.EXITED),
    ],
)
def test_states(active: str, sub: str, record: ExitRecord | None, expected: str) -> None:
    assert derive_state(active, sub, record) == expected


def test_what_is_listed(paths: Paths) -> None:
    for name in ("runs", "ended", "never", "masked", "starts"):
        path = define(paths, name, "" if name == "masked" else 'image = "x"\n')
        os.utime(path, (1000 + len(name), 1000 + len(name)))
    define(paths, "template@")
    define(paths, "made", created=True)
    put_bundle(
        paths, "runs", Summary(image="old", definition=f"{paths.definition_directories[0]}/runs.toml"), 1
    )
    for name in ("ended", "gone"):
        os.makedirs(paths.container_data(name))
    Path(exit_file(paths.container_data("ended"))).write_text(
        render_exit({"SERVICE_RESULT": "exit-code", "EXIT_CODE": "exited", "EXIT_STATUS": "7"}, 1.0, 2.0)
    )
    units = {
        "runs": unit("runs", "active"),
        "starts": unit("starts", "activating"),
        "gone": unit("gone", "failed"),
        "mistyped": unit("mistyped", "failed"),  # `systemctl --user start` of a container that there is not
    }
    asked = []

    def summarise(name: str) -> Summary:
        asked.append(name)
        return Summary(image="new", problem="broken" if name == "never" else "")

    alive = list_containers(paths, units, summarise)
    assert sorted((each.name, each.state) for each in alive) == [("runs", "running"), ("starts", "starting")]
    everything = {each.name: each for each in list_containers(paths, units, summarise, everything=True)}
    assert {name: each.state for name, each in everything.items()} == {
        "runs": State.RUNNING,
        "starts": State.STARTING,
        "ended": State.EXITED,
        "never": State.INVALID,
        "made": State.CREATED,
        "gone": State.FAILED,
    }
    assert everything["runs"].summary.image == "old"  # what it was started with
    assert everything["runs"].started > 0 and everything["runs"].created == 1004
    record = everything["ended"].exit
    assert record is not None and (record.status, record.finished) == (7, 2.0)
    assert "runs" not in asked


def test_one_whose_cgroup_stands_still_is_paused(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where systemd says that it runs: a unit that is stopping is stopping."""
    monkeypatch.setattr(containers, "find_group", lambda *_: "/group")
    monkeypatch.setattr(containers, "is_frozen", lambda group: group == "/group")
    units = {"a": unit("a", "active"), "b": unit("b", "deactivating")}
    found = list_containers(paths, units, lambda _: Summary())
    assert {each.name: (each.state, each.group) for each in found} == {
        "a": (State.PAUSED, "/group"),
        "b": (State.STOPPING, None),
    }
    assert all(each.is_alive for each in found)


def test_one_that_starts_again_tells_how_it_ended(paths: Paths) -> None:
    define(paths, "web")
    os.makedirs(paths.container_data("web"))
    Path(exit_file(paths.container_data("web"))).write_text(
        render_exit({"SERVICE_RESULT": "exit-code", "EXIT_CODE": "exited", "EXIT_STATUS": "7"}, 1.0, 2.0)
    )
    for sub, known in (("auto-restart", True), ("start", False)):
        units = {"web": unit("web", "activating", sub)}
        (one,) = list_containers(paths, units, lambda _: Summary(image="x"))
        assert (one.exit is not None) == known
        assert select_containers([one], {"exited": ["7"]}) == []


def test_summaries_are_cached_until_a_file_changes(paths: Paths) -> None:
    path = define(paths, "web")
    cache = summary_cache(paths, "web")
    os.makedirs(os.path.dirname(cache))
    Path(cache).write_text(
        render_summary(Summary(image="x", definition=path, stamps=[(path, stamp_path(path))]))
    )
    assert list_containers(paths, {}, refuse, everything=True)[0].summary.image == "x"
    Path(path).write_text('image = "yy"\n')
    with pytest.raises(AssertionError):
        list_containers(paths, {}, refuse, everything=True)


def test_filters(paths: Paths) -> None:
    define(paths, "web")
    define(paths, "database")
    summary = Summary(image="localhost/x:1", image_id="sha256:" + "cd" * 32, labels=[("a", "b"), ("c", "")])
    containers = list_containers(paths, {"web": unit("web", "active")}, lambda _: summary, everything=True)

    def names(**filters: list[str]) -> list[str]:
        return sorted(each.name for each in select_containers(containers, filters))

    both = ["database", "web"]
    assert names(name=["we"]) == ["web"]
    assert names(name=["^data", "web$"]) == both
    assert names(id=[container_id("web")[:12]]) == ["web"]
    assert names(status=["running"]) == ["web"]
    assert names(status=["running", "created"], name=["a"]) == ["database"]
    assert names(label=["a", "c"]) == both
    assert names(label=["a=b", "a=c"]) == []
    assert names(ancestor=["localhost/x"]) == both
    assert names(ancestor=["cdcd"]) == both
    assert names(exited=["0"]) == []
    for wrong in ({"colour": ["red"]}, {"status": ["happy"]}, {"name": ["("]}, {"exited": ["x"]}):
        with pytest.raises(InvalidArgument):
            select_containers(containers, wrong)


def test_names_and_ids(paths: Paths) -> None:
    define(paths, "web")
    define(paths, "made", created=True)
    os.makedirs(paths.bundle("bundled"))
    os.makedirs(paths.container_data("kept"))
    define(paths, "web@")
    Path(f"{paths.definition_directories[0]}/NOT A NAME.toml").touch()
    assert list_known(paths) == ["bundled", "kept", "made", "web"]
    for name in ("web", "made", "bundled", "kept", "web@blue"):
        assert is_known(paths, name)
        assert resolve_name(paths, name) == name
    identity = container_id("web")
    assert len(identity) == 64 and identity != container_id("made")
    for text in (identity, identity[:12]):
        assert resolve_name(paths, text) == "web"
    for text in ("nope", "../web", "", "ffffffffffff", "web@"):
        with pytest.raises(NoSuchContainer):
            resolve_name(paths, text)


def test_an_ambiguous_id(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    define(paths, "one")
    define(paths, "two")
    monkeypatch.setattr(lookup, "container_id", lambda name: "abc" + name)
    with pytest.raises(NoSuchContainer, match=r"not unique .*one or two"):
        resolve_name(paths, "abc")


def test_a_name_that_looks_like_an_id_is_a_name(paths: Paths) -> None:
    define(paths, "abcdef")
    assert resolve_name(paths, "abcdef") == "abcdef"


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def test_init_is_found_by_its_cgroup(
    paths: Paths, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    group = "/user.slice/user@1000.service/my.slice/container@web.service/container/init.scope"
    monkeypatch.setattr(lookup, "read_cgroup", lambda pid: group if pid == sleeper.pid else None)
    assert find_init(paths, "web") is None
    put_bundle(paths, "web", Summary(), sleeper.pid)
    init = find_init(paths, "web")
    assert init is not None
    assert (init.pid, init.cgroup, init.subgroup) == (sleeper.pid, group, "/container/init.scope")
    os.close(init.fd)
    # The same process is not the init of another container, whatever a file says.
    put_bundle(paths, "eb", Summary(), sleeper.pid)
    assert find_init(paths, "eb") is None
    with pytest.raises(NotRunning, match="usercontainer start eb"):
        get_init(paths, "eb")


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "999999999", "1 2"])
def test_a_stale_or_broken_pid_file(paths: Paths, text: str) -> None:
    put_bundle(paths, "web", Summary())
    Path(f"{paths.bundle('web')}/pid").write_text(text)
    assert find_init(paths, "web") is None


def test_another_process_with_the_same_pid(paths: Paths, sleeper: subprocess.Popen[bytes]) -> None:
    put_bundle(paths, "web", Summary(), sleeper.pid)
    assert find_init(paths, "web") is None
