"""The example application on a real bus: what a user would see, and what buttons do."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.bus import CONTAINER, call_manager, read
from tests.support.containers import BUSYBOX, Container, run, wait_until
from tests.support.desktop import Display, Panel
from tests.support.fakeregistry import Handler, build_tar, file
from tests.support.images import ImageMaker

Make = Callable[..., Container]
Take = Callable[[str], None]

WEB_IMAGE = "docker.io/library/nginx:1.27"
DATABASE_IMAGE = "docker.io/library/postgres:17"
WORKER_IMAGE = "quay.io/example/worker:3"
SERVE = """\
image = "{image}"
command = ["sh", "-c", '''
echo "listening on port 80"
echo "ready for connections"
trap "exit 0" TERM
while [ ! -e /run/more ]; do sleep 0.1; done
echo "one more line"
sleep 1000 & wait''']
network = "none"
stop_timeout = 1
"""
BREAK = """\
image = "{image}"
command = ["sh", "-c", "echo 'cannot reach the queue' >&2; exit 3"]
network = "none"
"""


@pytest.fixture(scope="module", autouse=True)
def tagged() -> Iterator[None]:
    """Images of well-known names, so that nothing is pulled and pictures look like a user's."""
    run("usercontainer", "pull", "-q", BUSYBOX)
    for name in (WEB_IMAGE, DATABASE_IMAGE, WORKER_IMAGE):
        run("usercontainer", "tag", BUSYBOX, name)
    yield
    run("systemctl", "--user", "stop", "usercontainerd")


@pytest.fixture(scope="module")
def started(display: Display) -> Iterator[Panel]:
    panel = Panel(display)
    panel.wait_for("No Containers")
    yield panel
    complaints = panel.close()
    assert "CRITICAL" not in complaints, complaints
    assert "Traceback" not in complaints, complaints


@pytest.fixture
def panel(started: Panel) -> Panel:
    """The application, back at its list."""
    assert started.process.poll() is None, started.process.communicate()[1]
    return started


def test_nothing_is_a_page_of_its_own(panel: Panel, take_picture: Take) -> None:
    panel.wait_for("No Containers")
    take_picture("panel-empty")


def test_what_others_do_shows_by_itself(panel: Panel, container: Make, take_picture: Take) -> None:
    container(SERVE.format(image=DATABASE_IMAGE), "database")
    web = container(SERVE.format(image=WEB_IMAGE), "web")
    panel.wait_for("database", f"Created · {DATABASE_IMAGE}", "web", f"Created · {WEB_IMAGE}")
    take_picture("panel-list")
    web.start()
    panel.wait_for(f"Running · {WEB_IMAGE}", f"Created · {DATABASE_IMAGE}")
    take_picture("panel-running")
    web.stop()
    panel.wait_for(f"Exited · {WEB_IMAGE}")


def test_buttons(panel: Panel, container: Make) -> None:
    one = container(SERVE.format(image=WEB_IMAGE), "web")
    panel.wait_for("web")
    panel.press("Start", "web")
    panel.wait_for("Running · ")
    first = one.pid
    panel.press("Restart", "web")
    wait_until(lambda: one.pid not in (0, first), "another process")
    panel.wait_for("Running · ")
    panel.press("Stop", "web")
    panel.wait_for("Exited · ")
    assert one.show("ActiveState") == "inactive"


def test_a_newer_image_is_told(panel: Panel, container: Make) -> None:
    """Until a restart has it used."""
    name, newer = "localhost/newer:1", "localhost/newer:2"
    run("usercontainer", "tag", BUSYBOX, name)
    one = container(SERVE.format(image=name), "web")
    one.start()
    panel.wait_for(f"Running · {name}")
    assert not panel.shows("newer image here")
    run("usercontainer", "commit", "-q", "web", newer)
    try:
        run("usercontainer", "tag", newer, name)
        panel.wait_for(f"Running · {name} · newer image here")
        panel.press("Restart", "web")
        panel.wait_without("newer image here")
        panel.wait_for(f"Running · {name}")
    finally:
        one.remove()
        run("usercontainer", "rmi", "--force", name, newer)


def test_actions_from_outside(panel: Panel, container: Make) -> None:
    one = container(SERVE.format(image=WEB_IMAGE), "web")
    panel.wait_for("web")
    panel.activate("start", "web")
    panel.wait_for("Running · ")
    panel.activate("stop", "web")
    panel.wait_for("Exited · ")
    assert one.show("ActiveState") == "inactive"
    panel.activate("start", "nobody")
    panel.wait_for("There is no container “nobody”")
    panel.press("Dismiss")
    panel.wait_without("There is no container")


def test_a_log_that_grows(panel: Panel, container: Make, take_picture: Take) -> None:
    one = container(SERVE.format(image=WEB_IMAGE), "web")
    panel.wait_for("web")
    one.start()
    panel.activate("show", "web")
    panel.wait_for("listening on port 80", "ready for connections")
    run("usercontainer", "exec", "web", "touch", "/run/more")
    panel.wait_for("one more line")
    take_picture("panel-log")
    one.stop()
    before = count_starts(panel)
    panel.activate("start", "web")
    wait_until(lambda: count_starts(panel) > before, "the log goes on with the next run")
    panel.activate("back")
    panel.wait_for("Running · ")
    panel.wait_without("one more line")


def test_a_switch_for_the_session(panel: Panel, container: Make, take_picture: Take) -> None:
    container(SERVE.format(image=WEB_IMAGE), "web").start()
    panel.wait_for("web")
    panel.activate("show", "web")
    panel.wait_for("ready for connections", "Start With the Session")
    assert not panel.is_on("Start With the Session")
    panel.toggle("Start With the Session")
    wait_until(lambda: panel.is_on("Start With the Session"), "the switch is on")
    wait_until(lambda: autostarts("web"), "it starts with the session")
    take_picture("panel-autostart")
    # What others do shows, too.
    run("usercontainer", "disable", "web")
    wait_until(lambda: not panel.is_on("Start With the Session"), "the switch is off")
    assert not autostarts("web")
    panel.activate("enable", "web")
    wait_until(lambda: panel.is_on("Start With the Session"), "the switch is on again")
    panel.toggle("Start With the Session")
    wait_until(lambda: not autostarts("web"), "it starts with the session no more")
    wait_until(lambda: not panel.is_on("Start With the Session"), "the switch is off again")
    panel.activate("back")


def test_a_switch_that_cannot_be_moved(panel: Panel, container: Make) -> None:
    """The service says why, and the switch shows what is so."""
    container(SERVE.format(image=WEB_IMAGE), "web")
    panel.wait_for("web")
    panel.activate("show", "web")
    panel.wait_for("Start With the Session")
    run("systemctl", "--user", "mask", "container@web")
    try:
        panel.toggle("Start With the Session")
        panel.wait_for("mask")
    finally:
        run("systemctl", "--user", "unmask", "container@web")
    wait_until(lambda: not panel.is_on("Start With the Session"), "the switch is off")
    panel.press("Dismiss")
    panel.activate("back")


def autostarts(name: str) -> bool:
    (path,) = call_manager("GetContainer", "sa{sv}", name, "0")
    return bool(read(path, CONTAINER, "Autostart"))


def count_starts(panel: Panel) -> int:
    return sum(text.count("listening on port 80") for text in panel.texts())


def test_a_failure_is_shown(panel: Panel, container: Make, take_picture: Take) -> None:
    container(SERVE.format(image=DATABASE_IMAGE), "database").start()
    container(SERVE.format(image=WEB_IMAGE), "web").start()
    container(BREAK.format(image=WORKER_IMAGE), "worker").start(check=False)
    panel.wait_for("worker failed: it exited with status 3", "Exited with status 3", f"Running · {WEB_IMAGE}")
    take_picture("panel-failure")
    panel.activate("show", "worker")
    panel.wait_for("cannot reach the queue")
    panel.activate("back")
    container(SERVE.format(image="localhost:5000/there-is-none:1"), "absent").start(check=False)
    panel.wait_for("2 containers failed", "Failed: localhost:5000/there-is-none:1")


@pytest.fixture
def mirrored(images: ImageMaker) -> Iterator[ImageMaker]:
    """Another registry's images come from the one of this test."""
    target = Path("~/.config/containers/registries.conf.d/mirrored.conf").expanduser()
    target.write_text(
        '[[registry]]\nprefix = "docker.io/library"\nlocation = "docker.io/library"\n'
        f'[[registry.mirror]]\nlocation = "{images.host}/library"\ninsecure = true\n'
    )
    yield images
    target.unlink()


def slow_down(maker: ImageMaker) -> None:
    """An image of three larger layers: of two a part comes, and the rest once the registry's rules are cleared."""
    layers = tuple(build_tar(file(f"{size}", os.urandom(size))) for size in (4_000_000, 2_500_000, 1_300_000))
    maker.add("library/redis", tag="8", layers=layers)
    large = [item for item in maker.registry.blobs.items() if len(item[1]) > 1_200_000]
    for part, (digest, data) in zip((0.1, 0.4, 1.0), large, strict=True):
        maker.registry.rules[f"/v2/library/redis/blobs/{digest}"] = hold_back(data, part)


def test_a_pull_in_progress(panel: Panel, mirrored: ImageMaker, take_picture: Take) -> None:
    slow_down(mirrored)
    panel.activate("pull", "docker.io/library/redis:8")
    panel.wait_for("docker.io/library/redis:8", " of ", "Cancel")
    panel.wait_for(" · 3.")
    take_picture("panel-pull")
    panel.activate("cancel-pull")
    panel.wait_without("docker.io/library/redis:8")
    mirrored.registry.rules.clear()
    panel.activate("pull", "docker.io/library/redis:8")
    panel.wait_for("Pulled docker.io/library/redis:8")
    panel.press("Dismiss")
    run("usercontainer", "rmi", "docker.io/library/redis:8")


def test_a_pull_of_a_service_that_is_killed(panel: Panel, mirrored: ImageMaker) -> None:
    slow_down(mirrored)
    panel.activate("pull", "docker.io/library/redis:8")
    panel.wait_for("docker.io/library/redis:8", " of ", "Cancel")
    os.kill(main_pid(), signal.SIGKILL)
    panel.wait_for("The service has ended, and the pull with it.")
    mirrored.registry.rules.clear()
    panel.press("Pull")
    panel.wait_for("Pulled docker.io/library/redis:8")
    panel.press("Dismiss")
    run("usercontainer", "rmi", "docker.io/library/redis:8")


def hold_back(data: bytes, part: float) -> Callable[[Handler], None]:
    """Send a blob, the first ``part`` of it slowly, the rest when there are no rules any more."""
    size = len(data) // 20

    def answer(handler: Handler) -> None:
        registry = handler.registry
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        for offset in range(0, len(data), size):
            while not registry.stopped.wait(0.05) and registry.rules and offset >= part * len(data):
                pass
            try:
                handler.wfile.write(data[offset : offset + size])
                handler.wfile.flush()
            except OSError:
                return

    return answer


def test_a_pull_that_fails(panel: Panel) -> None:
    panel.activate("pull", "localhost:5000/there-is-none:1")
    panel.wait_for("localhost:5000/there-is-none:1: ", "Pull an Image")
    panel.activate("cancel-pull")
    panel.wait_without("Pull an Image")


def test_the_service_is_killed(panel: Panel, container: Make) -> None:
    container(SERVE.format(image=WEB_IMAGE), "web").start()
    panel.wait_for("Running · ")
    before = main_pid()
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: main_pid() not in (0, before), "the application has it started again")
    panel.wait_for("Running · ")


def test_the_service_cannot_be_had(panel: Panel, container: Make, take_picture: Take) -> None:
    container(SERVE.format(image=WEB_IMAGE), "web")
    panel.wait_for("web")
    run("systemctl", "--user", "mask", "--now", "--runtime", "usercontainerd.service")
    try:
        panel.wait_for("Service Not Available", "Try Again")
        take_picture("panel-away")
    finally:
        run("systemctl", "--user", "unmask", "--runtime", "usercontainerd.service")
    panel.activate("connect")
    panel.wait_for("web", WEB_IMAGE)


def test_it_begins_without_a_service(started: Panel, display: Display, container: Make) -> None:
    """The last test: the application is another one from here on."""
    container(SERVE.format(image=WEB_IMAGE), "web")
    started.activate("quit")
    started.process.wait(60)
    run("systemctl", "--user", "mask", "--now", "--runtime", "usercontainerd.service")
    panel = Panel(display)
    try:
        panel.wait_for("Service Not Available", "usercontainerd.service is masked")
        run("systemctl", "--user", "unmask", "--runtime", "usercontainerd.service")
        panel.press("Try Again")
        panel.wait_for("web", WEB_IMAGE)
    finally:
        run("systemctl", "--user", "unmask", "--runtime", "usercontainerd.service")
        complaints = panel.close()
    assert "Traceback" not in complaints, complaints


def main_pid() -> int:
    return int(run("systemctl", "--user", "show", "-P", "MainPID", "usercontainerd").stdout)
