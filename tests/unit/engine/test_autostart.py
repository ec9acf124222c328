"""Having containers start with the session or not; the generator makes the links, as it does for systemd."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from usercontainerd.base.errors import InUse, InvalidArgument, InvalidDefinition, NoSuchContainer
from usercontainerd.base.paths import Paths
from usercontainerd.base.programs import Programs
from usercontainerd.engine.containers import autostart
from usercontainerd.engine.containers.autostart import (
    choice_path,
    disable_autostart,
    enable_autostart,
    forget_choice,
    is_autostarted,
    list_autostarted,
    render_choice,
)
from usercontainerd.engine.context import build_context
from usercontainerd.generator.output import write_units
from usercontainerd.generator.program import generate

PLAIN = 'image = "x"\n'
WANTED = f'{PLAIN}[install]\nwanted_by = ["graphical-session.target"]\n'


class Home:
    """A user's directories, with a manager that runs the generator when it is reloaded."""

    def __init__(self, path: Path) -> None:
        self.environment = {"HOME": str(path), "XDG_RUNTIME_DIR": f"{path}/run", "USER": "alice"}
        self.context = build_context(self.environment, Programs("/nowhere"), os.getuid(), os.getgid())
        self.paths = self.context.paths
        self.definitions = Path(self.paths.definition_directories[0])
        self.definitions.mkdir(parents=True)
        self.units = path / ".config/systemd/user"
        self.generated = path / "run/systemd/generator"

    def reload(self) -> None:
        shutil.rmtree(self.generated, ignore_errors=True)
        self.generated.mkdir(parents=True)
        programs = Programs("/nowhere")
        assert write_units(str(self.generated), generate(self.environment, os.getuid(), programs)) == []

    def define(self, name: str, text: str) -> None:
        (self.definitions / f"{name}.toml").write_text(text)
        self.reload()

    def enable(self, name: str, target: str = "") -> None:
        enable_autostart(self.context, self, name, target=target)  # type: ignore[arg-type]

    def disable(self, name: str) -> None:
        disable_autostart(self.context, self, name)  # type: ignore[arg-type]

    def links(self) -> list[str]:
        return sorted(f"{link.parent.name}/{link.name}" for link in self.generated.glob("*.*/*.service"))

    def link(self, name: str, target: str = "default.target") -> Path:
        path = self.units / f"{target}.wants/container@{name}.service"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to("/usr/lib/systemd/user/container@.service")
        return path

    def choice(self, name: str) -> Path:
        return Path(choice_path(self.paths, name))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setattr(autostart, "_ADMIN", str(tmp_path / "admin"))
    return Home(tmp_path)


def is_started(paths: Paths, name: str) -> bool:
    """What both ways of asking say: of one, and of all at once."""
    answer = is_autostarted(paths, name)
    assert answer == (name in list_autostarted(paths))
    return answer


def test_one_that_nothing_wants(home: Home) -> None:
    home.define("app", PLAIN)
    assert not is_started(home.paths, "app")
    home.enable("app")
    assert is_started(home.paths, "app")
    assert home.links() == ["default.target.wants/container@app.service"]
    assert "WantedBy=default.target" in (home.generated / "container@app.service").read_text()
    home.enable("app")
    home.enable("app", "graphical-session.target")
    assert home.links() == ["graphical-session.target.wants/container@app.service"]
    home.disable("app")
    assert not is_started(home.paths, "app")
    assert home.links() == []
    assert not home.choice("app").parent.exists()
    home.disable("app")


def test_one_that_its_definition_wants(home: Home) -> None:
    home.define("app", WANTED)
    home.enable("app")
    assert not home.choice("app").exists()
    home.disable("app")
    assert home.links() == []
    assert not is_started(home.paths, "app")
    assert str(home.choice("app")) in (home.generated / "container@app.service").read_text()
    home.enable("app")
    assert home.links() == ["graphical-session.target.wants/container@app.service"]
    assert not home.choice("app").exists()
    home.enable("app", "default.target")
    assert home.links() == [
        f"{target}.target.wants/container@app.service" for target in ("default", "graphical-session")
    ]


@pytest.mark.parametrize("key", ["required_by", "upheld_by"])
def test_whatever_way_it_is_wanted(home: Home, key: str) -> None:
    home.define("app", f'{PLAIN}[install]\n{key} = "a.target b.target"\n')
    assert is_started(home.paths, "app")
    home.disable("app")
    assert home.links() == []


def test_other_drop_ins_stay(home: Home) -> None:
    other = home.choice("app").parent / "10-mine.toml"
    other.parent.mkdir()
    other.write_text('[install]\nwanted_by = "default.target"\n')
    home.define("app", PLAIN)
    home.disable("app")
    assert home.links() == []
    home.enable("app")
    assert home.links() == ["default.target.wants/container@app.service"]
    assert other.exists() and not home.choice("app").exists()


def test_links_of_systemctl(home: Home) -> None:
    home.define("app", PLAIN)
    link = home.link("app")
    assert is_started(home.paths, "app")
    home.enable("app")
    assert link.is_symlink() and not home.choice("app").exists()
    home.disable("app")
    assert not link.is_symlink() and not is_started(home.paths, "app")


def test_an_instance_of_a_template(home: Home) -> None:
    home.define("web@", PLAIN)
    home.enable("web@blue")
    assert home.links() == ["default.target.wants/container@web@blue.service"]
    home.disable("web@blue")
    assert home.links() == []
    with pytest.raises(InvalidArgument, match="template"):
        home.enable("web@")


def test_what_only_another_can_change(home: Home, tmp_path: Path) -> None:
    home.define("app", PLAIN)
    admins = tmp_path / "admin/default.target.wants/container@app.service"
    admins.parent.mkdir(parents=True)
    admins.symlink_to("/x")
    with pytest.raises(InUse, match=r"administrator.*mask container@app\.service"):
        home.disable("app")
    admins.unlink()


@pytest.mark.parametrize(
    ("place", "command"),
    [
        (".config/systemd/user", "systemctl --user unmask"),
        ("run/systemd/user", "systemctl --user --runtime unmask"),
        ("admin", "sudo systemctl --global unmask"),
    ],
)
def test_what_is_masked_does_not_start(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, command: str
) -> None:
    monkeypatch.setattr(autostart, "_ADMIN", f"{tmp_path}/admin")
    home.define("app", WANTED)
    assert is_started(home.paths, "app")
    mask = tmp_path / place / "container@app.service"
    mask.parent.mkdir(parents=True, exist_ok=True)
    mask.symlink_to("/dev/null")
    with pytest.raises(InUse, match=rf"is masked \({command} container@app\.service\)"):
        home.enable("app")
    assert not is_started(home.paths, "app")


def test_later_drop_ins_win_and_that_is_said(home: Home) -> None:
    later = home.choice("app").parent / "zz.toml"
    later.parent.mkdir()
    later.write_text('[install]\nwanted_by = "default.target"\n')
    home.define("app", PLAIN)
    with pytest.raises(InUse, match="something else wants it"):
        home.disable("app")


def test_mistakes(home: Home) -> None:
    with pytest.raises(NoSuchContainer):
        home.enable("nobody")
    home.define("broken", "imgae = 1\n")
    with pytest.raises(InvalidDefinition, match="imgae"):
        home.enable("broken")
    home.define("app", PLAIN)
    for target in ("default", "a b.target", 'x".target', "../x.target"):
        with pytest.raises(InvalidArgument):
            home.enable("app", target)
    assert not home.choice("app").exists()


def test_a_target_with_an_escape(home: Home) -> None:
    home.define("app", PLAIN)
    home.enable("app", "my\\x2dthing.target")
    assert home.links() == ["my\\x2dthing.target.wants/container@app.service"]


def test_nothing_stays_of_one_that_goes(home: Home) -> None:
    home.define("app", PLAIN)
    home.enable("app")
    home.link("app")
    forget_choice(home.paths, "app")
    home.reload()
    assert not is_started(home.paths, "app")
    assert list(home.definitions.iterdir()) == [home.definitions / "app.toml"]
    # Without its definition the choice means nothing.
    home.enable("app")
    (home.definitions / "app.toml").unlink()
    home.reload()
    assert home.links() == []


def test_the_file_says_who_wrote_it() -> None:
    assert render_choice("app", "default.target").startswith("# `usercontainer enable app` has written this")
    assert render_choice("app", "").startswith("# `usercontainer disable app` has written this")
