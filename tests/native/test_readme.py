"""README's commands, as they are printed there: run here, or by another lane, or it is said why not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.containers import run
from tests.support.fakeregistry import file
from tests.support.images import ImageMaker, serve_images

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS = {
    block.split()[0] if not block.startswith("usercontainer ") else " ".join(block.split()[:3]): block
    for block in (
        re.sub(r"(?m)^    ", "", found)
        for found in re.findall(r"(?:^|\n\n)((?:    .*\n(?:\n(?=    ))?)+)", README)
    )
}
# Those that are run elsewhere, and where.
ELSEWHERE = {
    "./demo": "the first line in tests/native/test_demo.py, the second is what runs this",
    "busctl": "tests/desktop/test_guide.py",
    "sudo": "tests/rpm, but for dnf builddep, which wants Fedora's repositories",
    "python3": "tests/machine/test_pip.py",
    "tools/machine": "tests/machine/test_machine.py",
}
HOME = Path.home()
DEFINITION = HOME / ".config/usercontainerd/containers/app.toml"
REGISTRIES = HOME / ".config/containers/registries.conf.d/readme.conf"


def sh(script: str) -> str:
    """Run lines as a person types them, each of which has to end well; what they print, on both streams."""
    done = run("bash", "-e", "-c", f"exec 2>&1\n{script}", timeout=120)
    return done.stdout


def on_terminal(line: str, typed: str) -> str:
    """Run one command on a terminal of its own, as a person would who types this into it."""
    return run("sh", "-c", 'printf "$1" | script -qefc "$2" /dev/null', "sh", typed, line).stdout


@pytest.fixture(scope="module")
def docker_io() -> Iterator[ImageMaker]:
    """Stands in for docker.io, with the images that README names."""
    with serve_images() as maker:
        page = file("www/index.html", b"Welcome to nginx!\n")
        settings = {
            "Cmd": ["busybox", "httpd", "-f", "-p", "80", "-h", "/www"],
            "ExposedPorts": {"80/tcp": {}},
        }
        maker.add("library/nginx", page, settings=settings, tag="1.27")
        maker.add("library/nginx", page, settings=settings)
        maker.add("library/alpine")
        REGISTRIES.write_text(
            f'[[registry]]\nprefix = "docker.io"\nlocation = "{maker.host}"\ninsecure = true\n'
        )
        yield maker
        REGISTRIES.unlink()


def test_every_block_is_run_somewhere() -> None:
    here = set(re.findall(r'BLOCKS\["(.+?)"\]', Path(__file__).read_text(encoding="utf-8")))
    assert here | ELSEWHERE.keys() == BLOCKS.keys()
    assert not here & ELSEWHERE.keys()


def test_a_container_in_four_lines(docker_io: ImageMaker) -> None:
    DEFINITION.parent.mkdir(parents=True, exist_ok=True)
    try:
        DEFINITION.write_text(BLOCKS["image"])
        shown = sh(BLOCKS["systemctl"].replace("status ", "--no-pager status "))
        assert "Active: active (running)" in shown
        assert "ExecStart=/usr/libexec/usercontainerd/launch app" in shown  # the whole unit
        assert "Started container@app.service" in shown  # the journal
        assert sh("curl -sS http://127.0.0.1:8080/") == "Welcome to nginx!\n"
        assert '"output": "' in sh("usercontainer inspect app")
        assert sh("usercontainer verify") == "1 definition verified, no problem found\n"
    finally:
        sh(
            "systemctl --user stop container@app; systemctl --user reset-failed container@app 2>/dev/null || true"
        )
        DEFINITION.unlink()
        sh("systemctl --user daemon-reload")
    assert docker_io.registry


def test_as_docker_and_podman_do_it(docker_io: ImageMaker) -> None:
    first, second = BLOCKS["usercontainer run --rm"].splitlines()
    assert "inside" in on_terminal(first, "echo in''side; exit\\n")
    name = sh(second).splitlines()[-1]
    try:
        assert re.fullmatch("[0-9a-f]{64}", name)
        assert sh("curl -sS http://127.0.0.1:8080/") == "Welcome to nginx!\n"
        assert sh("usercontainer ps --format '{{.Names}}'").split() == ["web"]
    finally:
        sh("usercontainer rm -f web")
    assert docker_io.registry


def test_moving_from_podman(docker_io: ImageMaker, tmp_path: Path) -> None:
    sh("podman pull -q docker.io/library/alpine")
    sh(f"podman save -q -o {tmp_path}/images.tar docker.io/library/alpine")
    commands = BLOCKS["usercontainer image import-storage"]
    imported, loaded, saved = commands.splitlines()
    assert "alpine" in sh(imported)
    assert "docker.io/library/alpine" in sh(f"cd {tmp_path}\n{loaded}")
    sh("usercontainer tag docker.io/library/alpine app:1")
    ours = sh("usercontainer images -q --no-trunc app:1").strip().removeprefix("sha256:")
    sh(saved)
    assert sh("podman images -q --no-trunc app:1").strip().removeprefix("sha256:") == ours
    sh("podman rmi -f app:1 docker.io/library/alpine; usercontainer rmi -f app:1 docker.io/library/alpine")
    assert docker_io.registry


def test_when_something_went_wrong() -> None:
    shown = sh(BLOCKS["usercontainer system check"])
    assert "error" not in shown.lower()
