"""A definition that was made a moment ago is not read again, unless somebody has had a hand in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from usercontainerd.base.errors import NoSuchContainer
from usercontainerd.base.paths import Paths
from usercontainerd.base.programs import Programs
from usercontainerd.base.records import replace
from usercontainerd.definition.model import Definition
from usercontainerd.definition.toml_writer import render_definition
from usercontainerd.engine.context import Context
from usercontainerd.engine.definitions import read_definition, recall_definition


@pytest.fixture
def context(tmp_path: Path) -> Context:
    home, runtime = str(tmp_path / "home"), str(tmp_path / "run")
    paths = Paths.from_environment({"HOME": home, "XDG_RUNTIME_DIR": runtime}, 1000)
    return Context(paths, Programs("/x"), 1000, 1000, "alice", home)


def make(context: Context, user: str | None = None) -> Definition:
    place = Path(context.paths.passing_definitions)
    place.mkdir(parents=True, exist_ok=True)
    path = place / "web.toml"
    definition = Definition("web", "docker.io/library/busybox", sources=(str(path),), user=user)
    path.write_text(render_definition(definition))
    return definition


def test_what_was_made_is_what_would_be_read(context: Context) -> None:
    made = make(context, user="nobody")
    assert recall_definition(context, made).definition is made
    assert recall_definition(context, made) == read_definition(context, "web")


def test_what_others_add_counts(context: Context) -> None:
    made = make(context)
    drop_in = Path(f"{context.paths.passing_definitions}/web.toml.d/user.toml")
    drop_in.parent.mkdir()
    drop_in.write_text('user = "daemon"\n')
    recalled = recall_definition(context, made)
    assert (recalled.definition.user, recalled.found.drop_ins) == ("daemon", (str(drop_in),))
    drop_in.unlink()
    own = Path(context.paths.definition_directories[0]) / "web.toml"
    own.parent.mkdir(parents=True)
    own.write_text('image = "other"\n')
    assert recall_definition(context, made).definition.sources == (str(own),)


def test_what_was_removed_is_gone(context: Context) -> None:
    made = make(context)
    Path(made.sources[0]).unlink()
    with pytest.raises(NoSuchContainer):
        recall_definition(context, replace(made, user="nobody"))
