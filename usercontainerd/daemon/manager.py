"""The daemon's root object: org.usercontainer1.Manager."""

from __future__ import annotations

from usercontainerd import __version__
from usercontainerd.base.errors import InvalidDefinition, NoSuchContainer, NoSuchImage
from usercontainerd.daemon.server import Provider
from usercontainerd.engine.containers.listing import State
from usercontainerd.engine.containers.lookup import resolve_name
from usercontainerd.engine.host.facts import count_subordinate_ids, lingers, list_controllers, list_features
from usercontainerd.engine.images.local import find_image

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from usercontainerd.daemon.call import Call, Options
    from usercontainerd.daemon.image import ImageObject
    from usercontainerd.daemon.service import Service
    from usercontainerd.engine.containers.listing import Container

_COUNTS = ("Containers", "RunningContainers", "Images", "Jobs")
POLICIES = ("always", "missing", "newer", "never")


class ManagerObject(Provider):
    """The object at ``/org/usercontainer1``."""

    interface = "org.usercontainer1.Manager"

    def __init__(self, service: Service) -> None:
        super().__init__()
        self._service = service
        self._context = service.context
        self._counts: dict[str, int] = {}
        self.methods = {
            "ListContainers": self._list_containers,
            "GetContainer": self._get_container,
            "CreateContainer": self._create_container,
            "ListImages": self._list_images,
            "GetImage": self._get_image,
            "Pull": self._pull,
            "Load": self._load,
            "Import": self._import,
            "PruneImages": self._prune_images,
            "VerifyDefinition": self._verify_definition,
            "VerifyDefinitions": self._verify_definitions,
            "InstallDefinition": self._install_definition,
            "RemoveDefinition": self._remove_definition,
            "Reload": self._reload,
            "Login": self._login,
            "Logout": self._logout,
            "CheckStore": self._check_store,
            "ListComponents": self._list_components,
            "Doctor": self._doctor,
            "Subscribe": self._subscribe,
            "Unsubscribe": self._unsubscribe,
        }
        self.properties = {
            "Version": lambda: __version__,
            "Features": list_features,
            "Linger": lambda: lingers(self._context.user),
            "SubIds": lambda: list(count_subordinate_ids(self._context)),
            "CgroupControllers": lambda: list_controllers(self._context.uid),
            "Containers": lambda: len(self._service.board.containers),
            "RunningContainers": lambda: sum(
                one.container.state == State.RUNNING for one in self._service.board.containers.values()
            ),
            "Images": lambda: len(self._service.board.images),
            "Jobs": lambda: self._service.jobs.running,
        }

    # What there is

    async def _list_containers(self, _call: Call, options: Options) -> list[list[str]]:
        everything = options.take_flag("all", True)
        options.finish()
        return [
            [
                one.path,
                one.container.name,
                one.container.state,
                one.container.summary.image,
                one.status_text,
            ]
            for one in self._service.board.containers.values()
            if everything or one.container.is_alive
        ]

    async def _get_container(self, _call: Call, name: str, options: Options) -> str:
        options.finish()
        known = self._service.board.containers
        one = known.get(name)
        if one is None:
            name = resolve_name(self._context.paths, name)
            if name not in known:
                # It came just now, and nobody has told us yet.
                await self._service.board.refresh({name})
            one = known.get(name)
        if one is None:
            raise NoSuchContainer(f'no such container "{name}"')
        return one.path

    async def _list_images(self, _call: Call, options: Options) -> list[list[Any]]:
        options.finish()
        board = self._service.board
        if board.images_error is not None:
            raise board.images_error
        return [one.describe() for one in board.images.values()]

    async def _get_image(self, _call: Call, reference: str, options: Options) -> str:
        options.finish()
        record = find_image(self._context, reference)
        known = self._service.board.images
        if record is not None and record.id.hex not in known:
            self._service.board.refresh_images()  # it came just now, and nobody has told us yet
        one = None if record is None else known.get(record.id.hex)
        if one is None:
            raise NoSuchImage(f"there is no image {reference!r} here")
        return one.path

    # Long work

    async def _pull(self, call: Call, reference: str, options: Options) -> str:
        request = {
            "reference": reference,
            "policy": options.take_text("policy", "always"),
            "platform": options.take_text("platform"),
        }
        options.finish()
        return await self._service.jobs.start(call, "pull", reference, request)

    async def _load(self, call: Call, archive: int, options: Options) -> str:
        options.finish()
        return await self._service.jobs.start(call, "load", "", {}, reads=archive)

    async def _import(self, call: Call, archive: int, reference: str, options: Options) -> str:
        request = {"reference": reference, "changes": options.take_texts("changes")}
        options.finish()
        return await self._service.jobs.start(call, "import", reference, request, reads=archive)

    async def _prune_images(self, call: Call, options: Options) -> str:
        request = {"all": options.take_flag("all")}
        options.finish()
        return await self._service.jobs.start(call, "prune", "", request)

    async def _check_store(self, call: Call, options: Options) -> str:
        request = {"repair": options.take_flag("repair"), "quick": options.take_flag("quick")}
        options.finish()
        return await self._service.jobs.start(call, "check", "", request)

    # Logins

    async def _login(self, call: Call, registry: str, user: str, password: int, options: Options) -> None:
        options.finish()
        # Read by a process of its own: nobody knows when the descriptor will end.
        fd = call.find_input(password)
        request = {"registry": registry, "user": user}
        await self._service.run_program("login", request, stdin=fd, owner=call.sender)

    async def _logout(self, call: Call, registry: str, options: Options) -> None:
        options.finish()
        await self._service.run_program("logout", {"registry": registry}, owner=call.sender)

    # Containers that are made

    async def _create_container(
        self, _call: Call, name: str, settings: dict[str, Any], options: Options
    ) -> str:
        options.finish()
        from usercontainerd.daemon import definitions

        table = definitions.unwrap(settings)
        made = await self._service.run_with_manager(
            lambda manager: definitions.create(self._context, manager, name, table)
        )
        await self._service.board.refresh({made})
        return self._service.board.containers[made].path

    # Definitions

    async def _verify_definition(
        self, _call: Call, name: str, text: str, options: Options
    ) -> list[list[Any]]:
        options.finish()
        from usercontainerd.daemon import definitions

        found = await self._service.run(lambda: definitions.verify_text(self._context, name, text))
        return definitions.describe_diagnostics(found)

    async def _verify_definitions(self, _call: Call, options: Options) -> list[list[Any]]:
        options.finish()
        from usercontainerd.daemon import definitions
        from usercontainerd.engine.verification import verify_all

        _, found = await self._service.run(lambda: verify_all(self._context))
        return definitions.describe_diagnostics(found)

    async def _install_definition(
        self, _call: Call, name: str, text: str, options: Options
    ) -> tuple[str, list[list[Any]]]:
        replace = options.take_flag("replace")
        options.finish()
        from usercontainerd.daemon import definitions

        found = await self._service.run_with_manager(
            lambda manager: definitions.install_definition(
                self._context, manager, name, text, replace=replace
            )
        )
        await self._service.board.refresh_all()
        one = self._service.board.containers.get(name)
        if one is None:
            raise InvalidDefinition("the definition was written, but makes no container", where=name)
        return one.path, definitions.describe_diagnostics(found)

    async def _remove_definition(self, _call: Call, name: str, options: Options) -> None:
        options.finish()
        from usercontainerd.daemon import definitions

        await self._service.run_with_manager(
            lambda manager: definitions.remove_definition(self._context, manager, name)
        )
        await self._service.board.refresh_all()

    async def _reload(self, _call: Call, options: Options) -> None:
        options.finish()
        from usercontainerd.systemd.renewal import reload_definitions

        await self._service.run_with_manager(reload_definitions)
        await self._service.board.refresh_all()

    # About this host

    async def _list_components(self, _call: Call, options: Options) -> dict[str, str]:
        options.finish()
        from usercontainerd.engine.host.components import find_components, name_versions

        return await self._service.run(
            lambda: name_versions(find_components(self._context.paths.runtime_root))
        )

    async def _doctor(self, call: Call, options: Options) -> list[dict[str, str]]:
        options.finish()
        # It tries out namespaces, which a process with threads cannot.
        result = await self._service.run_program("doctor", {}, owner=call.sender)
        findings: list[dict[str, str]] = result["findings"]
        return findings

    # Clients

    async def _subscribe(self, call: Call, options: Options) -> None:
        options.finish()
        await self._service.add_watcher(call.sender)

    async def _unsubscribe(self, call: Call, options: Options) -> None:
        options.finish()
        self._service.remove_watcher(call.sender)

    # Telling

    def update_counts(self) -> list[str]:
        """Return the counts that are not what clients were told last."""
        counts = {name: int(self.properties[name]()) for name in _COUNTS}
        changed = [name for name in _COUNTS if counts[name] != self._counts.get(name)]
        self._counts = counts
        return changed

    def report_state(self, container: Container, before: str) -> None:
        """Send the event that a container's change of state is, as docker names them."""
        action = {
            State.RUNNING: "unpause" if before == State.PAUSED else "start",
            State.PAUSED: "pause",
            State.EXITED: "die",
            State.FAILED: "die",
            State.STARTING: "starting",
            State.STOPPING: "stopping",
            State.RESTARTING: "restarting",
        }.get(container.state)
        if action is None:
            return
        details = {"image": container.summary.image, "before": before}
        if container.exit is not None and action == "die":
            details["exit-status"] = str(container.exit.status)
        self._emit_event("container", action, container.name, details)

    def report_image(self, action: str, one: ImageObject) -> None:
        """Send the event that an image has come (``add``), gone (``remove``) or has other names (``rename``)."""
        self._emit_event("image", action, one.name, {"id": str(one.record.id)})

    def _emit_event(self, kind: str, action: str, name: str, details: dict[str, str]) -> None:
        self._service.server.emit("/org/usercontainer1", self, "Event", kind, action, name, details)
