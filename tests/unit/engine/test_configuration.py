"""usercontainerd.toml(5)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from usercontainerd.base.errors import InvalidFormat
from usercontainerd.base.paths import Paths
from usercontainerd.base.programs import Programs
from usercontainerd.engine.configuration import KEYS, Configuration, read_configuration
from usercontainerd.engine.context import Context


@pytest.fixture
def context(tmp_path: Path) -> Context:
    paths = Paths(
        config=f"{tmp_path}/config/usercontainerd", data="/d", cache="/c", runtime_root=str(tmp_path)
    )
    paths.system_config = f"{tmp_path}/etc"
    paths.vendor = f"{tmp_path}/usr"
    for directory in (paths.config, paths.system_config, paths.vendor, f"{tmp_path}/config/containers"):
        Path(directory).mkdir(parents=True)
    return Context(paths, Programs("/p"), 1000, 1000, "alice", "/home/alice")


def write(directory: str, text: str) -> None:
    Path(directory, "usercontainerd.toml").write_text(text, encoding="utf-8")


def test_first_found_wins(context: Context) -> None:
    assert read_configuration(context).keep_blobs is False
    write(context.paths.vendor, "[registry]\nmax_downloads = 2\n")
    assert read_configuration(context) == Configuration(2, False)
    write(context.paths.system_config, "[store]\nkeep_blobs = true\n")
    assert read_configuration(context).keep_blobs is True
    write(context.paths.config, "[registry]\nmax_downloads = 5\n[store]\n")
    assert read_configuration(context) == Configuration(5, False)


def test_containers_conf_counts_where_ours_is_silent(context: Context) -> None:
    conf = Path(context.paths.config).parent / "containers/containers.conf"
    conf.write_text("[engine]\nimage_parallel_copies = 7\n", encoding="utf-8")
    assert read_configuration(context).max_downloads == 7
    write(context.paths.config, "[registry]\nmax_downloads = 4\n")
    assert read_configuration(context).max_downloads == 4
    write(context.paths.config, "")
    for text in ("[engine]\nimage_parallel_copies = 0\n", "engine = 5\n", "[engine\n"):
        conf.write_text(text, encoding="utf-8")
        assert read_configuration(context).max_downloads >= 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[registry", r"config/usercontainerd/usercontainerd\.toml: not TOML"),
        ("[registri]\n", r"no table or key 'registri' \(did you mean registry\?\)"),
        ("registry = 5\n", r"registry: must be a table"),
        (
            "[registry]\nmax-downloads = 5\n",
            r"no key registry\.max-downloads \(did you mean max_downloads\?\)",
        ),
        ("[registry]\nmax_downloads = 0\n", r"registry\.max_downloads: must be a number from 1 to 32"),
        ("[registry]\nmax_downloads = true\n", r"registry\.max_downloads: must be a number"),
        ("[store]\nkeep_blobs = 'yes'\n", r"store\.keep_blobs: must be true or false"),
    ],
)
def test_errors_name_file_and_key(context: Context, text: str, message: str) -> None:
    write(context.paths.config, text)
    with pytest.raises(InvalidFormat, match=message):
        read_configuration(context)


def test_the_manual_has_every_key_and_no_other() -> None:
    manual = (Path(__file__).parents[3] / "man/usercontainerd.toml.5").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^\.SH (.*)\n((?:(?!\.SH ).*\n)*)", manual, re.MULTILINE))
    explained = {
        section.lower(): set(re.findall(r"^\.TP\n\.B (\w+)$", text, re.MULTILINE))
        for section, text in sections.items()
        if ".TP\n" in text
    }
    assert explained == {section: set(keys) for section, keys in KEYS.items()}
