"""Several processes that name, remove, prune and pull images of one store at once."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.fakeregistry import FakeRegistry, build_tar, file
from tests.support.pulling import snapshot, store_of
from usercontainerd.engine.checking import check_store
from usercontainerd.engine.context import Context
from usercontainerd.engine.images.local import list_images, open_images
from usercontainerd.engine.images.names import tag_image
from usercontainerd.engine.images.removal import prune_images
from usercontainerd.engine.transfers.obtaining import pull_image

# Whatever comes of a single step, it is a whole one, or an error that says that another process was faster.
ACTOR = """
import os, random, sys
from usercontainerd.base.errors import InUse, InvalidArgument, NoSuchImage
from usercontainerd.base.programs import find_programs
from usercontainerd.engine.context import build_context
from usercontainerd.engine.images.names import tag_image, untag_image
from usercontainerd.engine.images.removal import prune_images, remove_image
from usercontainerd.engine.transfers.obtaining import pull_image

context = build_context(dict(os.environ), find_programs(), os.getuid(), os.getgid())
host, seed = sys.argv[1:]
chance = random.Random(int(seed))
for _ in range(15):
    app, name = f"{host}/app:{chance.randrange(3)}", f"shared:{chance.randrange(3)}"
    step = chance.choice((
        lambda: tag_image(context, app, [name, f"own:{seed}"]),
        lambda: untag_image(context, name),
        lambda: remove_image(context, name),
        lambda: remove_image(context, app, force=True),
        lambda: prune_images(context),
        lambda: pull_image(context, app),
        lambda: pull_image(context, app),
    ))
    try:
        step()
    except (InUse, NoSuchImage):
        pass
"""


def test_everything_at_once(context: Context, registry: FakeRegistry) -> None:
    shared = build_tar(file("shared", b"1", uid=9))
    for number in range(3):
        registry.add_image("app", str(number), [shared, build_tar(file(f"own{number}", b"2", uid=8))])
    pull_image(context, f"{registry.host}/app:0")
    registry.add_image("kept", "latest", [shared])
    kept = pull_image(context, f"{registry.host}/kept:latest")
    actors = [
        subprocess.Popen(
            [sys.executable, "-c", ACTOR, registry.host, str(seed)],
            env={**dict(context.environment), "PYTHONPATH": ":".join(sys.path)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in range(4)
    ]
    for actor in actors:
        _, errors = actor.communicate(timeout=120)
        assert actor.returncode == 0, errors
    assert kept.id in {record.id for record in list_images(context)}
    for record in list_images(context):
        assert open_images(context).is_whole(record)
        open_images(context).configuration(record)
    for name in open_images(context).all_names():
        assert open_images(context).read(name.image) is not None, name.name
    assert check_store(context, max_age=0) == []
    prune_images(context, everything=True)
    assert snapshot(context) == []
    assert os.listdir(store_of(context).trash) == []


def test_an_image_has_one_record_under_many_names(context: Context, registry: FakeRegistry) -> None:
    registry.add_image("app", "latest", [build_tar(file("x"))])
    digest = f"{registry.host}/app@{pull_image(context, f'{registry.host}/app').manifest}"
    pull_image(context, digest)
    tag_image(context, digest, ["other", "other:2"])
    (record,) = list_images(context)
    assert sorted(name.name for name in record.names) == sorted(
        [f"{registry.host}/app:latest", digest, "localhost/other:latest", "localhost/other:2"]
    )
