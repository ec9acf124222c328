"""Images that come, and what that means to containers: on the bus, in ps and in inspect."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from dbus_next import Message

from tests.support.bus import CONTAINER, IMAGE, MANAGER, NAME, ROOT, call_manager, finish_job, path_of, read
from tests.support.containers import BUSYBOX, SLEEPER, Container, run
from tests.support.watching import watch
from usercontainerd.daemon.connection import connect_bus

Make = Callable[..., Container]

pytestmark = pytest.mark.usefixtures("bus_image")


def make_image(name: str) -> str:
    """An image like busybox that is no other; return its ID."""
    maker = f"maker-{os.urandom(3).hex()}"
    run("usercontainer", "create", "--name", maker, BUSYBOX, "sleep", "1000")
    try:
        run("usercontainer", "commit", "-q", "-m", maker, maker, name)
    finally:
        run("usercontainer", "rm", maker)
    return (
        run("usercontainer", "image", "inspect", "-f", "{{.Id}}", name).stdout.strip().removeprefix("sha256:")
    )


@pytest.fixture
def remote() -> Iterator[str]:
    """The name of an image that is in the registry and not here."""
    name = f"localhost:5000/coming-{os.urandom(3).hex()}:1"
    make_image(name)
    run("usercontainer", "push", "-q", name, name)
    run("usercontainer", "rmi", name)
    yield name
    run("usercontainer", "rmi", "--force", name, check=False)


def follow(image: str) -> str:
    return SLEEPER.replace(BUSYBOX, image)


def read_everywhere(name: str) -> set[bool]:
    """What each of our doors says of a newer image."""
    listed = run(
        "usercontainer", "ps", "-a", "--format", "{{.Names}} {{.UpdateAvailable}}"
    ).stdout.splitlines()
    in_json = json.loads(run("usercontainer", "ps", "-a", "--format", "json").stdout)
    (path,) = call_manager("GetContainer", "sa{sv}", name, "0")
    return {
        read(path, CONTAINER, "UpdateAvailable"),
        next(line for line in listed if line.startswith(f"{name} ")).endswith(" true"),
        next(each for each in in_json if each["Names"] in (name, [name]))["UpdateAvailable"],
        run("usercontainer", "inspect", "-f", "{{.UpdateAvailable}}", name).stdout.strip() == "true",
    }


def test_an_image_that_comes_is_told_of_its_containers(container: Make, remote: str) -> None:
    path = path_of(container(follow(remote)))

    async def observe() -> None:
        async with watch() as watcher:
            assert read(path, CONTAINER, "ImageId") == ""
            await asyncio.to_thread(run, "usercontainer", "pull", "-q", remote)
            await watcher.wait_for(lambda: watcher.values(path, "ImageId"), "the container has an image now")
            assert watcher.values(path, "ImageId") == [read(path, CONTAINER, "ImageId")] != [""]

    asyncio.run(observe())


def test_what_a_job_was_for_is_there_when_it_ends(container: Make, remote: str) -> None:
    """The image is an object before Completed is sent, and its container has it: nobody has to wait for more."""
    path = path_of(container(follow(remote)))
    seen: list[tuple[str, str]] = []

    async def observe() -> None:
        bus = await connect_bus(os.environ["DBUS_SESSION_BUS_ADDRESS"])
        ended = asyncio.Event()

        def take(message: Message) -> bool:
            if message.member == "InterfacesAdded" and IMAGE in message.body[1]:
                seen.append(("image", message.body[1][IMAGE]["Names"].value[0]))
            elif message.member == "PropertiesChanged" and "ImageId" in message.body[1]:
                seen.append(("container", message.path))
            elif message.member == "Completed":
                seen.append(("end", message.body[0]))
                ended.set()
            return False

        bus.add_message_handler(take)
        await bus.add_match(f"type='signal',sender='{NAME}',path_namespace='{ROOT}'")
        await bus.ask(NAME, ROOT, MANAGER, "Subscribe", "a{sv}", [{}])
        await bus.ask(NAME, ROOT, MANAGER, "Pull", "sa{sv}", [remote, {}])
        async with asyncio.timeout(60):
            await ended.wait()
        bus.disconnect()

    asyncio.run(observe())
    assert seen == [("image", remote), ("container", path), ("end", "done")]


def test_an_image_can_be_asked_for_as_soon_as_it_is_there() -> None:
    """By name and by its path, also before the daemon has heard of it."""
    assert read(ROOT, MANAGER, "Version")
    for number in range(5):
        name = f"localhost/soon-{os.urandom(3).hex()}:{number}"
        digits = make_image(name)
        try:
            if number % 2:
                assert call_manager("GetImage", "sa{sv}", name, "0") == [f"{ROOT}/image/{digits}"]
            else:
                assert read(f"{ROOT}/image/{digits}", IMAGE, "Names") == [name]
        finally:
            run("usercontainer", "rmi", name)


def test_a_newer_image_is_told_until_it_is_used(container: Make) -> None:
    name = f"localhost/newer-{os.urandom(3).hex()}:1"
    make_image(name)
    one = container(follow(name))
    path = path_of(one)
    one.start()

    async def observe() -> None:
        async with watch() as watcher:

            async def wait_for_values(*values: bool) -> None:
                await watcher.wait_for(
                    lambda: watcher.values(path, "UpdateAvailable") == list(values), f"told {values}"
                )

            assert read_everywhere(one.name) == {False}
            await asyncio.to_thread(make_image, name)
            await wait_for_values(True)
            assert read_everywhere(one.name) == {True}
            await asyncio.to_thread(run, "systemctl", "--user", "restart", one.unit)
            await wait_for_values(True, False)
            assert read_everywhere(one.name) == {False}

    try:
        asyncio.run(observe())
    finally:
        one.remove()
        run("usercontainer", "rmi", "--force", name)


def test_one_that_was_made_of_an_image_stays_with_it() -> None:
    image, made = f"localhost/newer-{os.urandom(3).hex()}:1", f"made-{os.urandom(3).hex()}"
    make_image(image)
    run(
        "usercontainer",
        "create",
        "--name",
        made,
        "--network",
        "none",
        "--stop-timeout",
        "0",
        image,
        "sleep",
        "1000",
    )
    try:
        assert read_everywhere(made) == {False}
        make_image(image)
        assert read_everywhere(made) == {True}
        run("usercontainer", "start", made)
        assert read_everywhere(made) == {True}
    finally:
        run("usercontainer", "rm", "--force", made)
        run("usercontainer", "rmi", "--force", image)


def test_a_definition_with_a_digest_wants_nothing_newer(container: Make) -> None:
    image = f"localhost/newer-{os.urandom(3).hex()}:1"
    make_image(image)
    digest = run("usercontainer", "image", "inspect", "-f", "{{.Digest}}", image).stdout.strip()
    one = container(follow(f"{image}@{digest}"))
    one.start()
    try:
        make_image(image)
        assert read_everywhere(one.name) == {False}
    finally:
        one.remove()
        run("usercontainer", "rmi", "--force", image)


def test_a_committed_image_is_listed_at_the_end() -> None:
    """Whatever the watch on the disk has heard by then."""
    maker, name = f"maker-{os.urandom(3).hex()}", f"localhost/committed-{os.urandom(3).hex()}:1"

    def list_names() -> list[Any]:
        return [each for image in call_manager("ListImages", "a{sv}", "0")[0] for each in image[2]]

    run("usercontainer", "create", "--name", maker, BUSYBOX, "sleep", "1000")
    try:
        (path,) = call_manager("GetContainer", "sa{sv}", maker, "0")
        done = run(
            "busctl", "--user", "--json=short", "call", NAME, path, CONTAINER, "Commit", "sa{sv}", name, "0"
        )
        found = finish_job(json.loads(done.stdout)["data"][0])
        assert found["State"] == "done", found
        assert name in list_names()
    finally:
        run("usercontainer", "rm", maker)
        run("usercontainer", "rmi", name, check=False)
