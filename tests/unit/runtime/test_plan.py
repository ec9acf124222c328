"""The launch plan: what is written is read again, and anything else is no plan."""

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from usercontainerd.kernel.idmap import Extent, IdMap
from usercontainerd.runtime.plan import LaunchPlan, is_current, parse_plan, read_plan, render_plan, stamp_path

MAP = IdMap([Extent(0, 1000, 1), Extent(1, 100000, 65536)], [Extent(0, 1000, 1)])
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)


def fields(plan: LaunchPlan) -> dict[str, object]:
    return {slot: getattr(plan, slot) for slot in LaunchPlan.__slots__}


@given(
    TEXTS, st.lists(TEXTS), st.lists(st.tuples(TEXTS, TEXTS)), st.lists(TEXTS), st.booleans(), st.booleans()
)
def test_round_trip(
    data: str, pasta: list[str], volumes: list[tuple[str, str]], stamps: list[str], keep: bool, ready: bool
) -> None:
    plan = LaunchPlan(
        id_map=MAP,
        network="pasta",
        layers=3,
        data=data,
        init_system=not keep,
        keep=keep,
        ready=ready,
        pasta=pasta,
        ports=[("tcp", "", 80, 1), ("udp", "::1", 1000, 20)],
        cgroup=[("memory.max", "1024")],
        volumes=volumes,
        stamps=[(path, "1:2:3") for path in stamps],
    )
    again = parse_plan(render_plan(plan, "1.0"), "1.0")
    assert again is not None
    assert fields(again) == fields(plan)


def test_other_versions_and_damage_are_no_plan() -> None:
    text = render_plan(LaunchPlan(id_map=MAP, network="none", layers=1, data="/d"), "1.0")
    assert parse_plan(text, "1.0") is not None
    assert parse_plan(text, "1.1") is None
    for end in range(len(text)):
        assert parse_plan(text[:end], "1.0") is None
    assert parse_plan("", "1.0") is None


def test_a_plan_is_current_until_one_of_its_inputs_changes(tmp_path: Path) -> None:
    there, absent = tmp_path / "there", tmp_path / "absent"
    there.write_text("1", encoding="ascii")
    stamps = [(str(path), stamp_path(str(path))) for path in (there, absent)]
    plan = LaunchPlan(id_map=MAP, network="none", layers=1, data="/d", stamps=stamps)
    assert is_current(plan)
    absent.write_text("", encoding="ascii")
    assert not is_current(plan)
    absent.unlink()
    assert is_current(plan)
    replacement = tmp_path / "replacement"
    replacement.write_text("1", encoding="ascii")
    os.rename(replacement, there)
    assert not is_current(plan)


def test_read_plan_follows_no_symlink(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.write_text(
        render_plan(LaunchPlan(id_map=MAP, network="none", layers=1, data="/d"), "1"), encoding="utf-8"
    )
    (tmp_path / "plan").symlink_to(real)
    assert read_plan(str(real), "1") is not None
    assert read_plan(str(tmp_path / "plan"), "1") is None
    assert read_plan(str(tmp_path / "none"), "1") is None


def test_a_plan_of_another_version(tmp_path: Path) -> None:
    text = render_plan(LaunchPlan(id_map=MAP, network="none", layers=1, data="/d", keep=True), "0.9")
    assert parse_plan(text, "1.0") is None
    # What puts away a container that runs since before an update reads it all the same, also with keys that came later.
    plan = parse_plan(text + "colour blue\n", None)
    assert plan is not None
    assert plan.keep
    later = text.replace("usercontainerd-plan 1 ", "usercontainerd-plan 2 ")
    assert later != text
    assert parse_plan(later, None) is None
    (tmp_path / "plan").write_text(text, encoding="utf-8")
    assert read_plan(str(tmp_path / "plan"), None) is not None
