"""Which files make a definition."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.definition.owner import OWNER
from usercontainerd.definition.diagnostic import Diagnostic
from usercontainerd.definition.reader import load_definition
from usercontainerd.definition.search import Found, describe_file, find_definition, find_definitions
from usercontainerd.definition.toml_reader import MAX_SIZE


class Tree:
    """Three directories of definitions; ``write("user/web.toml")`` makes a file in one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.directories = tuple(f"{root}/{name}" for name in ("user", "admin", "vendor"))

    def write(self, path: str, text: str = 'image = "x"') -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def mask(self, path: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.symlink_to("/dev/null")

    def all(
        self, problems: list[Diagnostic] | None = None
    ) -> dict[str, tuple[str, tuple[str, ...], str | None]]:
        found = find_definitions(self.directories, problems)
        assert [f.name for f in found] == sorted(f.name for f in found)
        for each in found:  # looking up one name gives what the whole list has
            assert find_definition(self.directories, each.name) == each
        return {f.name: (self.short(f.path), tuple(map(self.short, f.drop_ins)), f.template) for f in found}

    def short(self, path: str) -> str:
        return os.path.relpath(path, self.root)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_nothing_there(tree: Tree) -> None:
    problems: list[Diagnostic] = []
    assert tree.all(problems) == {}
    assert problems == []
    assert find_definition(tree.directories, "web") is None


def test_the_first_directory_wins(tree: Tree) -> None:
    tree.write("vendor/web.toml")
    tree.write("admin/web.toml")
    tree.write("vendor/db.toml")
    assert tree.all() == {"web": ("admin/web.toml", (), None), "db": ("vendor/db.toml", (), None)}


def test_drop_ins_of_all_directories_by_file_name(tree: Tree) -> None:
    tree.write("vendor/web.toml")
    for path in (
        "vendor/web.toml.d/20-b.toml",
        "vendor/web.toml.d/10-a.toml",
        "admin/web.toml.d/20-b.toml",
        "user/web.toml.d/30.toml",
    ):
        tree.write(path)
    for path in ("user/web.toml.d/README", "user/web.toml.d/.40.toml", "user/web.toml.d/50.toml~"):
        tree.write(path)
    drop_ins = ("vendor/web.toml.d/10-a.toml", "admin/web.toml.d/20-b.toml", "user/web.toml.d/30.toml")
    assert tree.all() == {"web": ("vendor/web.toml", drop_ins, None)}


def test_drop_ins_without_a_definition_are_nothing(tree: Tree) -> None:
    tree.write("user/web.toml.d/a.toml")
    assert tree.all() == {}


def test_masks(tree: Tree) -> None:
    tree.write("vendor/linked.toml")
    tree.mask("user/linked.toml")
    tree.write("vendor/empty.toml")
    tree.write("admin/empty.toml", "")
    tree.write("vendor/web.toml")
    tree.write("vendor/web.toml.d/1.toml")
    tree.mask("admin/web.toml.d/1.toml")
    tree.write("vendor/web.toml.d/2.toml")
    tree.write("admin/web.toml.d/2.toml", "")
    assert tree.all() == {"web": ("vendor/web.toml", (), None)}
    assert find_definition(tree.directories, "linked") is None
    assert find_definition(tree.directories, "empty") is None


def test_instances_of_a_template(tree: Tree) -> None:
    tree.write("vendor/web@.toml")
    tree.write("vendor/web@.toml.d/1.toml")
    tree.write("vendor/web@.toml.d/2.toml")
    tree.write("user/web@own.toml")
    tree.write("user/web@blue.toml.d/2.toml")
    tree.write("user/web@blue.toml.d/3.toml")
    assert tree.all() == {
        "web@": ("vendor/web@.toml", ("vendor/web@.toml.d/1.toml", "vendor/web@.toml.d/2.toml"), None),
        "web@own": ("user/web@own.toml", ("vendor/web@.toml.d/1.toml", "vendor/web@.toml.d/2.toml"), None),
        "web@blue": (
            "vendor/web@.toml",
            ("vendor/web@.toml.d/1.toml", "user/web@blue.toml.d/2.toml", "user/web@blue.toml.d/3.toml"),
            "web@",
        ),
    }
    found = find_definition(tree.directories, "web@red")
    assert found is not None
    assert (tree.short(found.path), found.template, found.is_template) == ("vendor/web@.toml", "web@", False)
    assert find_definition(tree.directories, "other@red") is None
    assert find_definition(tree.directories, "web") is None


def test_an_instance_drop_in_of_any_directory_beats_the_template_s(tree: Tree) -> None:
    tree.write("user/web@.toml")
    tree.write("user/web@.toml.d/1.toml")
    tree.write("vendor/web@blue.toml.d/1.toml")
    assert tree.all()["web@blue"][1] == ("vendor/web@blue.toml.d/1.toml",)


def test_a_masked_template_or_instance(tree: Tree) -> None:
    tree.write("vendor/web@.toml")
    tree.mask("user/web@blue.toml")
    tree.write("vendor/db@.toml")
    tree.mask("user/db@.toml")
    tree.write("user/db@one.toml.d/1.toml")
    assert set(tree.all()) == {"web@"}
    assert find_definition(tree.directories, "web@blue") is None
    assert find_definition(tree.directories, "db@one") is None


def test_an_instance_may_be_a_link_to_its_template(tree: Tree) -> None:
    tree.write("user/web@.toml", 'image = "x"\nhostname = "%i"')
    (tree.root / "user/web@blue.toml").symlink_to("web@.toml")
    found = find_definition(tree.directories, "web@blue")
    assert found is not None
    definition, diagnostics = load_definition(found, OWNER)
    assert diagnostics == ()
    assert definition is not None
    assert (definition.name, definition.hostname) == ("web@blue", "blue")


@pytest.mark.parametrize(
    "name", ["../web", "a/b", "", ".", "web@", "a b", "@x", "web@a@b", "é", "a\0", "a" * 201]
)
def test_impossible_names_find_nothing(tree: Tree, name: str) -> None:
    assert find_definition(tree.directories, name) is None


def test_files_with_impossible_names_are_reported(tree: Tree) -> None:
    for name in ("a b", "-x", "@x", "web@a@b", "é"):
        tree.write(f"user/{name}.toml")
    tree.write("user/.hidden.toml")
    tree.write("user/notes.txt")
    problems: list[Diagnostic] = []
    assert tree.all(problems) == {}
    assert len(problems) == 5
    assert all("the file must be NAME.toml" in each.message for each in problems)


def test_what_cannot_be_read_is_reported(tree: Tree) -> None:
    tree.write("user/good.toml")
    (tree.root / "user/dangling.toml").symlink_to("nowhere")
    (tree.root / "user/loop.toml").symlink_to("loop.toml")
    (tree.root / "user/directory.toml").mkdir()
    os.mkfifo(tree.root / "user/pipe.toml")
    tree.write("user/good.toml.d/1.toml")
    (tree.root / "user/good.toml.d/2.toml").symlink_to("nowhere")
    tree.root.joinpath("user/latin.toml").write_bytes(b'image = "x"\n# \xe9')
    tree.write("user/large.toml", "#" * (MAX_SIZE + 1))
    outcome = {}
    for found in find_definitions(tree.directories):
        definition, diagnostics = load_definition(found, OWNER)
        assert definition is None
        (problem,) = diagnostics
        outcome[found.name] = (os.path.basename(problem.path), problem.line, problem.message)
    assert outcome == {
        "dangling": ("dangling.toml", 0, "cannot be read: No such file or directory"),
        "directory": ("directory.toml", 0, "cannot be read: it is not a regular file"),
        "good": ("2.toml", 0, "cannot be read: No such file or directory"),
        "large": ("large.toml", 0, "is larger than 1 MiB"),
        "latin": ("latin.toml", 2, "is not UTF-8 text"),
        "loop": ("loop.toml", 0, "cannot be read: Too many levels of symbolic links"),
        "pipe": ("pipe.toml", 0, "cannot be read: it is not a regular file"),
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_directory_is_reported(tree: Tree) -> None:
    tree.write("user/web.toml")
    (tree.root / "user").chmod(0)
    problems: list[Diagnostic] = []
    assert find_definitions(tree.directories, problems) == ()
    (tree.root / "user").chmod(0o700)
    assert problems[0].message == "cannot be read: Permission denied"


def test_a_byte_order_mark_does_no_harm(tree: Tree) -> None:
    (tree.root / "web.toml").write_bytes(b'\xef\xbb\xbfimage = "x"\n')
    definition, diagnostics = load_definition(Found("web", f"{tree.root}/web.toml"), OWNER)
    assert diagnostics == ()
    assert definition is not None


def test_a_file_named_explicitly(tree: Tree) -> None:
    tree.write("web@blue.toml")
    tree.write("web@blue.toml.d/1.toml")
    tree.write("web@.toml.d/2.toml")
    found = describe_file(f"{tree.root}/web@blue.toml")
    assert found is not None
    assert (found.name, len(found.drop_ins)) == ("web@blue", 2)
    problems: list[Diagnostic] = []
    assert describe_file("/x/bad name.toml", problems) is None
    assert describe_file("web.conf", problems) is None
    assert describe_file("web.toml") == Found("web", "web.toml")
    assert len(problems) == 2


def test_a_removed_file_is_a_diagnostic() -> None:
    definition, diagnostics = load_definition(Found("web", "/nowhere/web.toml", ("/nowhere/1.toml",)), OWNER)
    assert definition is None
    assert [d.path for d in diagnostics] == ["/nowhere/web.toml", "/nowhere/1.toml"]
