"""One image on the bus: org.usercontainer1.Image."""

from __future__ import annotations

import json

from usercontainerd.base.times import parse_rfc3339
from usercontainerd.daemon.jobs import make_variant
from usercontainerd.daemon.server import Provider

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from usercontainerd.daemon.call import Call, Options
    from usercontainerd.daemon.connection import Variant
    from usercontainerd.daemon.service import Service
    from usercontainerd.store.records import ImageRecord

PATHS = "/org/usercontainer1/image"


class ImageObject(Provider):
    """An image that is in the store."""

    interface = "org.usercontainer1.Image"

    def __init__(self, service: Service, record: ImageRecord) -> None:
        super().__init__()
        self._service = service
        self.record = record
        self.path = f"{PATHS}/{record.id.hex}"
        self.methods = {
            "Tag": self._tag,
            "Untag": self._untag,
            "Remove": self._remove,
            "Push": self._push,
            "Save": self._save,
            "History": self._history,
            "Inspect": self._inspect,
        }
        self.properties = {
            "Id": lambda: str(self.record.id),
            "Names": lambda: [name.name for name in self.record.names],
            "Digests": self._list_digests,
            "Size": lambda: self.record.size,
            "CreatedAt": lambda: int(parse_rfc3339(self.record.created)),
            "PulledAt": lambda: self.record.pulled,
            "Platform": lambda: self.record.platform,
            "Layers": lambda: [str(layer) for layer in self.record.layers],
        }
        self.find_changes()

    @property
    def name(self) -> str:
        """The name to call it by: its first one, else its ID."""
        return self.record.names[0].name if self.record.names else str(self.record.id)

    # Properties

    def _list_digests(self) -> list[str]:
        digests = [str(digest) for name in self.record.names for digest in name.digests]
        return list(dict.fromkeys([*digests, str(self.record.manifest)]))

    def update(self, record: ImageRecord) -> list[str]:
        """Take what was read anew; return the properties that changed."""
        self.record = record
        return self.find_changes()

    def describe(self) -> list[Any]:
        """Its line of ``ListImages``."""
        names = [name.name for name in self.record.names]
        return [
            self.path,
            str(self.record.id),
            names,
            self.record.size,
            int(parse_rfc3339(self.record.created)),
        ]

    # Methods

    async def _tag(self, _call: Call, reference: str, options: Options) -> None:
        options.finish()
        from usercontainerd.engine.images.names import tag_image

        await self._change(lambda: tag_image(self._service.context, self.record.id, [reference]))

    async def _untag(self, _call: Call, reference: str, options: Options) -> None:
        options.finish()
        from usercontainerd.engine.images.names import untag_image

        await self._change(lambda: untag_image(self._service.context, self.record.id, [reference]))

    async def _remove(self, _call: Call, options: Options) -> None:
        force = options.take_flag("force")
        options.finish()
        from usercontainerd.engine.images.removal import remove_image

        context = self._service.context
        await self._service.run_with_manager(
            lambda manager: remove_image(context, self.record.id, manager=manager, force=force)
        )
        self._service.board.refresh_images()

    async def _change(self, change: Callable[[], object]) -> None:
        """Change the store; whoever asks afterwards finds it changed."""
        await self._service.run(change)
        self._service.board.refresh_images()

    async def _push(self, call: Call, destination: str, options: Options) -> str:
        request = {"image": self.name, "destination": destination}
        options.finish()
        return await self._service.jobs.start(call, "push", destination or self.name, request)

    async def _save(self, call: Call, output: int, options: Options) -> str:
        request = {
            "image": self.name,
            "format": options.take_text("format", "docker-archive"),
        }
        options.finish()
        return await self._service.jobs.start(call, "save", self.name, request, writes=output)

    async def _history(self, _call: Call, options: Options) -> list[dict[str, Variant]]:
        options.finish()
        from usercontainerd.engine.images.history import read_history

        steps = await self._service.run(lambda: read_history(self._service.context, self.record.id))
        return [
            {
                name: make_variant(value)
                for name, value in (
                    ("id", step.id),
                    ("created", step.entry.created),
                    ("created-by", step.entry.created_by),
                    ("size", step.size),
                    ("comment", step.entry.comment),
                )
            }
            for step in steps
        ]

    async def _inspect(self, _call: Call, options: Options) -> str:
        options.finish()
        from usercontainerd.engine.images.inspection import inspect_image

        found = await self._service.run(lambda: inspect_image(self._service.context, self.record.id))
        return json.dumps(found)
