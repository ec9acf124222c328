"""Whether the output is a pipe by what is mounted, whose files may be the container's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from usercontainerd.definition.model import Definition, Mount, MountType, Output
from usercontainerd.engine.containers.output_choice import OutputChoice, choose_output
from usercontainerd.runtime.identity import Identity
from usercontainerd.runtime.streamnames import Command

TEXT = "echo begun >/dev/stderr\n"


def choose(
    *mounts: Mount,
    command: str = "server",
    known: str = "",
    uid: int = 0,
    volumes: tuple[tuple[str, str], ...] = (),
) -> OutputChoice:
    definition = Definition("app", "busybox", mounts=mounts, output=Output.AUTO)
    return choose_output(
        definition, Command(command.split(), directory="/data"), Identity(uid), known, volumes
    )


def bind(target: str, source: Path) -> Mount:
    return Mount(MountType.BIND, target, str(source))


def test_what_the_definition_says_holds() -> None:
    command = Command(["server"])
    for output, pipe in ((Output.PIPE, True), (Output.JOURNAL, False)):
        definition = Definition("app", "busybox", output=output)
        assert choose_output(definition, command, Identity(7), "known", ()).pipe is pipe


def test_users_and_what_is_known() -> None:
    assert choose() == OutputChoice(False)
    assert choose(known="it is").reason == "it is"
    assert "user 7" in choose(uid=7).reason


@pytest.mark.parametrize("linked", [True, False])
def test_configuration_that_is_mounted(tmp_path: Path, *, linked: bool) -> None:
    """A source is the user's own: where it is a link, what that leads to is what is mounted."""
    real = tmp_path / "real.conf"
    real.write_text(TEXT)
    source = tmp_path / "conf"
    source.symlink_to(real) if linked else real.rename(source)
    found = choose(bind("/srv/server.conf", source))
    assert found.reason.startswith("the mount on /srv/server.conf: ")
    assert found.inputs == (str(source),)
    directory = tmp_path / "d/inner"
    directory.mkdir(parents=True)
    (directory / "x").write_text(TEXT)
    assert "/inner/x has /dev/stderr" in choose(bind("/etc/server", directory.parent)).reason
    assert choose(bind("/srv/data", directory.parent)).reason == ""


@pytest.mark.parametrize("word", ["/data/run.sh", "run.sh", "./run.sh", "--init=/data/run.sh"])
def test_a_script_in_a_volume(tmp_path: Path, word: str) -> None:
    (tmp_path / "run.sh").write_text(TEXT)
    found = choose(command=f"server {word}", volumes=(("/data", str(tmp_path)),))
    assert found.reason == "the mount on /data/run.sh: /run.sh has /dev/stderr"
    assert found.inputs == (f"{tmp_path}/run.sh",)


def test_no_link_of_a_volume_leads_out(tmp_path: Path) -> None:
    """What is in a volume is the container's: it must not have files of its user read."""
    secret, volume = tmp_path / "secret", tmp_path / "volume"
    for path in (secret, volume):
        path.mkdir()
    (secret / "run.sh").write_text(TEXT)
    (volume / "a").symlink_to(secret)
    (volume / "b.sh").symlink_to(secret / "run.sh")
    for word in ("/data/a/run.sh", "/data/b.sh", "/data/a"):
        assert choose(command=f"server {word}", volumes=(("/data", str(volume)),)).reason == ""
