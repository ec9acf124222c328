"""Removing an image from below its containers: what runs goes on, what starts either works or fails clearly."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from tests.support.containers import Container, run
from tests.support.fakeregistry import file
from tests.support.images import ImageMaker
from usercontainerd.base.programs import find_programs
from usercontainerd.engine.context import Context, build_context
from usercontainerd.engine.images.local import empty_trash, open_images
from usercontainerd.engine.transfers.obtaining import pull_image
from usercontainerd.kernel.atomicfile import FileLock

Make = Callable[..., Container]


def alice() -> Context:
    return build_context(dict(os.environ), find_programs(), os.getuid(), os.getgid())


def remove_by_force(context: Context, name: str) -> list[str]:
    """Forget the image, whoever uses it; return the directories of its layers."""
    images = open_images(context)
    record = images.get(name)
    directories = list(images.layer_directories(record))
    with images.lock():
        images.remove(record)
    empty_trash(context)
    return directories


def define(image: str) -> str:
    return f'image = "{image}"\ncommand = ["sh", "-c", "cat /big; sleep 1000"]\nnetwork = "none"\nstop_timeout = 0\n'


def test_running_containers_keep_their_layers(container: Make, images: ImageMaker) -> None:
    context = alice()
    name = images.add("held", file("big", os.urandom(1000).hex().encode()), file("other", b"still here\n"))
    one = container(define(name))
    one.start()
    directories = remove_by_force(context, name)
    assert open_images(context).find(name) is None
    own = next(directory for directory in directories if Path(directory, "other").exists())
    shown = run("usercontainer", "exec", one.name, "cat", "/other").stdout
    assert shown == "still here\n"
    # Removing again, or anything else, does not take them either.
    with open_images(context).lock():
        open_images(context).collect()
    assert os.path.exists(own)
    one.stop()
    with open_images(context).lock():
        open_images(context).collect()
    empty_trash(context)
    assert not os.path.exists(own)


def test_start_while_the_image_is_removed(container: Make, images: ImageMaker) -> None:
    context = alice()
    name = images.add("raced", file("big", b"x"), file("mine", os.urandom(8)))
    one = container(define(name))
    one.start()
    one.stop()
    failed = 0
    for number in range(12):
        pull_image(context, name)
        remover = threading.Timer(number / 100, remove_by_force, (context, name))
        remover.start()
        started = one.start(check=False)
        remover.join()
        if started.returncode == 0:
            assert run("usercontainer", "exec", one.name, "cat", "/big").stdout == "x"
        else:
            failed += 1
            text = one.show("StatusText")
            assert "removed just now" in text or "layer" in text or "no image" in text, text
        one.stop()
    assert failed < 12


def test_layers_are_held_while_a_container_starts(container: Make, images: ImageMaker) -> None:
    context = alice()
    name = images.add("waits", file("big", b"x"))
    one = container(define(name))
    pull_image(context, name)
    data = context.paths.data
    with FileLock(f"{data}/locks/starting"):  # somebody is removing layers
        starter = threading.Thread(target=one.start)
        starter.start()
        starter.join(0.5)
        assert one.show("ActiveState") == "activating"
    starter.join()
    assert one.show("ActiveState") == "active"
