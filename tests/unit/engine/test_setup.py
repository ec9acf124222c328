"""Setting a copy up, and taking it away again, in directories that stand for the real ones."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from usercontainerd.base.errors import AlreadyExists, HostError, InvalidFormat, StoreError
from usercontainerd.base.paths import Paths
from usercontainerd.engine.setup import check as setup_check
from usercontainerd.engine.setup import copy as setup_copy
from usercontainerd.engine.setup import placing as setup
from usercontainerd.engine.setup import running as setup_running
from usercontainerd.engine.setup.check import Effect, check_interpreter, check_setup, find_effect
from usercontainerd.engine.setup.copy import (
    check_for_all,
    find_closed,
    find_locations,
    read_sources,
    walk_way,
)
from usercontainerd.engine.setup.installation import SOURCES, Copy
from usercontainerd.engine.setup.placing import Act, Step, apply_setup, plan_changes, remove_setup
from usercontainerd.engine.setup.plan import Installed, Places, Plan, Scope, plan_places, plan_setup
from usercontainerd.engine.setup.record import Record, read_record
from usercontainerd.engine.setup.running import find_running

TOP = Path(__file__).resolve().parents[3]


class Host:
    """A user's home directory with a virtual environment."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.prefix = f"{path}/a venv"
        self.site = f"{self.prefix}/lib/python3/site-packages"
        Path(self.site, "usercontainerd").mkdir(parents=True)
        self.places = plan_places(Scope.USER, {"HOME": str(path)})
        self.sources = read_sources(str(TOP))
        self.installed = self.install("1.0")

    def install(self, version: str) -> Installed:
        copy = Copy(f"{self.prefix}/libexec/usercontainerd", (self.site,), sys.executable)
        return Installed(self.prefix, str(TOP), copy, version, ".".join(map(str, sys.version_info[:2])))

    def plan(self, *, with_pair: bool = True) -> Plan:
        return plan_setup(self.installed, self.places, self.sources, with_pair=with_pair)

    def apply(self, *, force: bool = False) -> list[str]:
        return [
            f"{step.act} {step.path}"
            for step in apply_setup(self.installed, self.places, self.plan(), force=force)
        ]

    def record(self) -> Record:
        found = read_record(self.places.record)
        assert found is not None
        return found

    def problems(self) -> dict[str, str]:
        return {each.where: each.what for each in check_setup(self.installed, self.plan(), self.record())}

    def files(self) -> set[str]:
        return {str(path.relative_to(self.path)) for path in self.path.rglob("*") if not path.is_dir()}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_set_up_and_its_removal(host: Host) -> None:
    before = sorted(host.path.rglob("*"))
    steps = host.apply()
    assert f"write {host.path}/.local/share/systemd/user/container@.service" in steps
    assert f"link {host.path}/.config/systemd/user/paths.target.wants/usercontainerd-units.path" in steps
    assert not any("generator" in step and "/libexec/" not in step and "/man/" not in step for step in steps)
    assert host.apply() == []
    assert host.problems() == {}
    launch = Path(host.prefix, "libexec/usercontainerd/launch")
    assert stat.S_IMODE(launch.stat().st_mode) == 0o755
    assert f'sys.path.insert(0, "{host.site}")' in launch.read_text()
    unit = host.path / ".local/share/systemd/user/container@.service"
    assert f'ExecStart="{host.prefix}/libexec/usercontainerd/launch" %i\n' in unit.read_text()
    link = host.path / ".config/systemd/user/default.target.wants/usercontainerd-units.service"
    assert link.resolve() == unit.with_name("usercontainerd-units.service")
    assert all(step.act is Act.REMOVE for step in remove_setup(host.places, host.record()))
    assert sorted(host.path.rglob("*")) == before


def test_what_is_not_ours_stays(host: Host) -> None:
    mine = host.path / ".local/share/systemd/user/container.slice"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(AlreadyExists, match=r"container\.slice"):
        host.apply()
    assert host.files() == {".local/share/systemd/user/container.slice"}  # nothing was begun
    assert f"replace {mine}" in host.apply(force=True)
    mine.write_text("mine again")
    assert host.problems() == {str(mine): "changed by somebody"}
    steps = remove_setup(host.places, host.record())
    assert [step.path for step in steps if step.act is Act.KEEP] == [str(mine)]
    assert host.files() == {".local/share/systemd/user/container.slice"}


@pytest.mark.parametrize("kind", ["link", "directory"])
def test_a_path_that_is_no_file_is_somebodys(host: Host, kind: str) -> None:
    path = host.path / ".local/share/systemd/user/usercontainerd.service"
    path.parent.mkdir(parents=True)
    path.symlink_to("/dev/null") if kind == "link" else path.mkdir()  # masked
    with pytest.raises(AlreadyExists, match=r"usercontainerd\.service"):
        host.apply()


def test_an_upgrade_replaces_and_cleans(host: Host) -> None:
    host.apply()
    host.sources["units"]["container.slice"] += b"# new\n"
    del host.sources["man"]["container-definition.5"]
    host.installed = host.install("2.0")
    slice_, page = (
        f"{host.path}/.local/share/{path}"
        for path in ("systemd/user/container.slice", "man/man5/container-definition.5")
    )
    assert host.problems() == {
        slice_: "old",
        page: "not needed any more",
        host.prefix: "set up by version 1.0, this is 2.0",
    }
    assert host.apply() == [f"replace {slice_}", f"remove {page}"]
    assert host.problems() == {}


def test_without_the_pair_its_units_go(host: Host) -> None:
    host.apply()
    steps = apply_setup(host.installed, host.places, host.plan(with_pair=False))
    assert {(step.act, os.path.basename(step.path)) for step in steps} == {
        (Act.REMOVE, "usercontainerd-units.service"),
        (Act.REMOVE, "usercontainerd-units.path"),
    }
    assert not (host.path / ".config/systemd/user/default.target.wants").exists()


@pytest.mark.parametrize("after", range(0, 32, 3))
def test_an_interrupted_one_goes_on(host: Host, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    host.apply()
    for name in host.sources["units"]:
        host.sources["units"][name] += b"# new\n"
    host.sources["man"].clear()
    host.installed = host.install("2.0")
    real: Callable[..., None] = setup.apply_step
    count = 0

    def fail(*arguments: object) -> None:
        nonlocal count
        count += 1
        if count > after:
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(setup, "apply_step", fail)
    try:
        host.apply()
    except KeyboardInterrupt:
        pass
    monkeypatch.setattr(setup, "apply_step", real)
    # Removed or done again: both know every file.
    if after % 2:
        host.apply()
        assert host.problems() == {}
    remove_setup(host.places, host.record())
    assert host.files() == set()


def test_what_programs_need_is_missed(host: Host) -> None:
    host.apply()
    Path(host.site, "usercontainerd").rmdir()
    record = replace(host.record(), python="2.7")
    found = {each.where: each.what for each in check_setup(host.installed, host.plan(), record)}
    assert "gone" in found[host.site]
    assert "set up for 2.7" in found[sys.executable]
    found = {
        each.where: each.what for each in check_setup(None, None, replace(record, interpreter="/no/python3"))
    }
    assert "cannot be run" in found["/no/python3"]


def test_another_copys_files_are_still_known(host: Host) -> None:
    host.apply()
    page = Path(f"{host.path}/.local/share/man/man1/usercontainer.1")
    page.unlink()
    unit = Path(f"{host.path}/.local/share/systemd/user/container.slice")
    unit.write_text("changed")
    found = {each.where: each.what for each in check_setup(None, None, host.record())}
    assert found == {str(page): "missing", str(unit): "changed by somebody"}


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 2}', '{"format": 1, "files": 3}'])
def test_a_record_that_is_none(host: Host, text: str) -> None:
    Path(host.places.record).parent.mkdir(parents=True)
    Path(host.places.record).write_text(text)
    with pytest.raises(InvalidFormat, match=r"setup\.json.*remove this file"):
        read_record(host.places.record)


def test_the_record_is_what_is_there(host: Host) -> None:
    host.apply()
    recorded = json.loads(Path(host.places.record).read_text())
    assert {*recorded["files"], *recorded["links"], host.places.record} == {
        f"{host.path}/{path}" for path in host.files()
    }


def test_roots_is_below_usr_local() -> None:
    places = plan_places(Scope.SYSTEM, {"HOME": "/root", "XDG_DATA_HOME": "/elsewhere"})
    copy = Copy("/opt/v/libexec/usercontainerd", ("/opt/v/lib/python3/site-packages",))
    plan = plan_setup(
        Installed("/opt/v", "", copy, "1", "3"), places, read_sources(str(TOP)), with_pair=False
    )
    assert not plan.links
    paths = {file.path for file in plan.files}
    assert "/usr/local/lib/systemd/user-generators/usercontainerd-generator" in paths
    assert all(path.startswith(("/usr/local/", "/opt/v/libexec/usercontainerd/")) for path in paths)
    assert not any("usercontainerd-units" in path for path in paths)


def test_xdg_variables_count() -> None:
    places = plan_places(
        Scope.USER,
        {"HOME": "/h", "XDG_DATA_HOME": "/d", "XDG_CONFIG_HOME": "relative", "XDG_STATE_HOME": "/s/"},
    )
    assert places == Places(Scope.USER, "/d", "/h/.config", "/s/usercontainerd/setup.json")


def test_all_sources_are_read() -> None:
    assert set(read_sources(str(TOP))) >= set(SOURCES) - {"completions"}


def test_what_others_cannot_read_is_not_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "lib/python3/site-packages"
    site.mkdir(parents=True)
    closed = tmp_path / "lib"
    closed.chmod(0o700)
    assert find_closed(str(site)) is not None
    assert find_closed("/usr/bin/env") is None
    installed = Installed("/usr", "", Copy("/usr/libexec/x", (str(site),), "/bin/sh"), "1", "3")
    with pytest.raises(HostError, match="users other than root"):
        check_for_all(installed)
    monkeypatch.setattr(setup_copy, "find_closed", lambda _: None)
    os.chown(site, 1234, 1234) if os.getuid() == 0 else None
    with pytest.raises(HostError, match="belongs to user"):
        check_for_all(installed)


def fake_owners(monkeypatch: pytest.MonkeyPatch, owners: dict[str, int]) -> None:
    """Have paths belong to these users, and all others to root."""
    real = os.lstat

    def lstat(path: str) -> os.stat_result:
        fields = list(real(path))
        fields[stat.ST_UID] = owners.get(path, 0)
        return os.stat_result(fields)

    monkeypatch.setattr(os, "lstat", lstat)


def test_what_others_can_change_is_not_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory on the way to a virtual environment of root's is enough to put another one there."""
    venv = tmp_path / "alice/venv"
    for name in ("bin", "lib/python3/site-packages"):
        (venv / name).mkdir(parents=True)
    (venv / "bin/python3").symlink_to("../../python3")
    (tmp_path / "alice/python3").symlink_to("/bin/sh")
    site, interpreter = str(venv / "lib/python3/site-packages"), str(venv / "bin/python3")
    copy = Copy(f"{venv}/libexec/usercontainerd", (site,), interpreter)
    installed = Installed(str(venv), "", copy, "1", "3")
    monkeypatch.setattr(setup_copy, "find_closed", lambda _: None)
    fake_owners(monkeypatch, {})
    check_for_all(installed)
    for foreign in ("alice", "alice/venv", "alice/python3", "alice/venv/lib"):
        fake_owners(monkeypatch, {str(tmp_path / foreign): 1000})
        with pytest.raises(HostError, match="belongs to user 1000") as caught:
            check_for_all(installed)
        assert str(tmp_path / foreign) in str(caught.value)
    fake_owners(monkeypatch, {})
    (venv / "lib").chmod(0o777)
    with pytest.raises(HostError, match="everybody may write"):
        check_for_all(installed)
    (venv / "lib").chmod(0o1777)  # there, each can change only what is his own
    check_for_all(installed)


def test_users_own_packages_are_not_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if the home directory is open to all: other users would run them, and each user would miss his own."""
    top, own = tmp_path / "usr/lib/python3/site-packages", tmp_path / "home/lib/python3/site-packages"
    for path in (top, own):
        path.mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(top), str(own)])
    monkeypatch.setattr(setup_copy, "find_closed", lambda _: None)
    fake_owners(monkeypatch, {str(own): 1000})
    assert find_locations(str(top), Scope.USER) == (str(top), str(own))
    assert find_locations(str(top), Scope.SYSTEM) == (str(top),)


def test_the_way_to_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to("a/../a")
    (tmp_path / "c").symlink_to(tmp_path / "b")
    (tmp_path / "loop").symlink_to("loop")
    ways = [path.removeprefix(f"{tmp_path}/") for path in walk_way(f"{tmp_path}/c/file")]
    inner = [path for path in ways if not path.startswith("/")]
    assert inner == ["c", "b", "a", "a", "a/file"]
    assert len(list(walk_way(f"{tmp_path}/loop"))) < 100


def test_containers_of_other_users_hold_back_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for user, name in ((1000, "app"), (1001, "other")):
        unit = f"user.slice/user-{user}.slice/user@{user}.service/container.slice/container@{name}.service"
        (tmp_path / unit / "container").mkdir(parents=True)
    monkeypatch.setattr(setup_running, "find_cgroup_mount", lambda: str(tmp_path))
    assert find_running(None, "/x") == ["1000/app", "1001/other"]
    assert find_running(None, "/x", 1000) == ["1000/app"]
    assert find_running(None, "/x", 1002) == []


@pytest.mark.parametrize("linked", [True, False])
def test_a_directory_in_the_way_of_a_link(tmp_path: Path, *, linked: bool) -> None:
    path = tmp_path / "there"
    path.symlink_to("elsewhere") if linked else path.mkdir()
    step = Step(Act.LINK, str(path))
    if linked:
        setup.apply_step(step, {}, {str(path): "/target"})
        assert os.readlink(path) == "/target"
    else:
        with pytest.raises(StoreError, match="there"):
            setup.apply_step(step, {}, {str(path): "/target"})
    assert os.listdir(tmp_path) == ["there"]


def test_a_directory_that_vanishes_is_an_error_with_its_path(tmp_path: Path) -> None:
    step = Step(Act.LINK, f"{tmp_path}/gone/link")
    with pytest.raises(StoreError, match="gone/link"):
        setup.apply_step(step, {}, {step.path: "/target"})
    setup.apply_step(Step(Act.REMOVE, f"{tmp_path}/gone/link"), {}, {})


def test_a_python_that_does_not_answer(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.apply()
    python = host.path / "python3"
    python.write_text("#!/bin/sh\nexec sleep 60\n")
    python.chmod(0o755)
    monkeypatch.setattr(setup_check, "_PATIENCE", 0.1)
    found = list(check_interpreter(replace(host.record(), interpreter=str(python))))
    assert [(problem.where, "not answered" in problem.what) for problem in found] == [(str(python), True)]


def test_the_first_unit_is_in_effect(host: Host) -> None:
    paths = Paths.from_environment({"HOME": str(host.path), "XDG_RUNTIME_DIR": f"{host.path}/run"}, 1000)
    host.apply()
    effect = find_effect(paths)
    assert (
        effect.units == f"{host.path}/.local/share/systemd/user/container@.service, programs in {host.prefix}"
    )
    own = host.path / ".config/systemd/user/container@.service"
    own.write_text("[Service]\nExecStart=/usr/libexec/usercontainerd/launch %i\n")
    assert find_effect(paths).units == f"{own}, programs in /usr"
    assert "not there" in Effect(None, None, None).render()[1]


def test_changes_of_mode_are_mended(host: Host) -> None:
    host.apply()
    Path(host.prefix, "libexec/usercontainerd/launch").chmod(0o644)
    assert [step.act for step in plan_changes(host.plan(), host.record()).steps] == [Act.REPLACE]
    host.apply()
    assert host.problems() == {}
