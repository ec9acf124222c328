"""What renew-unit says; that systemd then starts the right thing is tested natively."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from usercontainerd.base.errors import SystemdError
from usercontainerd.generator import renewal
from usercontainerd.generator.inputs import find_instances
from usercontainerd.generator.renewal import main


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / ".config/usercontainerd/containers").mkdir(parents=True)
    return {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": f"{tmp_path}/run", "JOURNAL_STREAM": "8:1"}


def define(environment: dict[str, str], name: str, text: str) -> Path:
    path = Path(environment["HOME"], ".config/usercontainerd/containers", name)
    path.write_text(text)
    return path


def test_all_problems_are_told(
    environment: dict[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = define(environment, "app.toml", "image = 1\nmemry = 2\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        assert main(["app"], {**environment, "NOTIFY_SOCKET": str(tmp_path / "notify")}, "/p") == 78
        status = manager.recv(4096).decode()
    assert status.startswith(f"STATUS={path}:1: error: image: must be a string")
    assert status.endswith("(and 1 more)")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"<3>{path}:") for line in lines)


def test_no_definition(environment: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    define(environment, "apple.toml", "")
    define(environment, "apply.toml", 'image = "x"')
    define(environment, "apple@.toml", 'image = "x"')
    assert main(["appl"], environment, "/p") == 78
    said = capsys.readouterr().err
    assert 'there is no definition of a container "appl"' in said
    assert 'did you mean "apply"?' in said  # the other one is masked


@pytest.mark.parametrize(("arguments", "status"), [([], 2), (["a", "b"], 2), (["a/b"], 78), (["web@"], 78)])
def test_arguments(arguments: list[str], status: int, environment: dict[str, str]) -> None:
    assert main(arguments, environment, "/p") == status


def test_an_instance_is_noted(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def reload(runtime: str, unit: str, address: str | None) -> bool:
        asked.append(unit)
        return True

    monkeypatch.setattr(renewal, "reload_unknown_unit", reload)
    define(environment, "web@.toml", 'image = "x"')
    define(environment, "app.toml", 'image = "x"')
    assert main(["web@blue"], environment, "/p") == 0
    assert main(["app"], environment, "/p") == 0
    assert asked == ["container@web@blue.service", "container@app.service"]
    assert find_instances(f"{environment['XDG_RUNTIME_DIR']}/usercontainerd", ()) == ("web@blue",)


def test_no_generator(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(renewal, "reload_unknown_unit", lambda *_: False)
    define(environment, "app.toml", 'image = "x"')
    assert main(["app"], environment, "/p") == 78
    assert "user-generators" in capsys.readouterr().err


def test_no_systemd(environment: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    define(environment, "app.toml", 'image = "x"')
    assert main(["app"], environment, "/p") == 78
    assert "the user's systemd cannot be reached" in capsys.readouterr().err


def test_no_place_to_note(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    Path(environment["XDG_RUNTIME_DIR"]).touch()
    define(environment, "web@.toml", 'image = "x"')
    monkeypatch.setattr(renewal, "reload_unknown_unit", lambda *_: True)
    assert main(["web@blue"], environment, "/p") == 78
    with pytest.raises(SystemdError, match="cannot note"):
        renewal.note_instance(environment["XDG_RUNTIME_DIR"], "web@blue")
