"""All images of one repository."""

from __future__ import annotations

from usercontainerd.base.errors import InvalidArgument, NoSuchImage
from usercontainerd.engine.images.local import read_registries
from usercontainerd.engine.registries.access import AS_CONFIGURED, RegistryAccess
from usercontainerd.engine.registries.endpoints import SILENT, Conversation, choose_meaning, try_candidates
from usercontainerd.oci.reference import Reference, parse_reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.engine.context import Context
    from usercontainerd.engine.registries.source import RegistrySource


def list_repository(
    context: Context, text: str, *, access: RegistryAccess = AS_CONFIGURED, talk: Conversation = SILENT
) -> list[str]:
    """Return the full name of each tag of the repository that ``text`` names; a tag in it does not count.

    Raises ``InvalidArgument`` for a digest, ``NoSuchImage``, ``PullDenied``, ``RegistryError``.
    """
    reference = parse_reference(text.removeprefix("docker://"))
    if reference.digest is not None:
        raise InvalidArgument("all tags of a digest are not possible", where=text)
    configuration = read_registries(context)
    meaning, _ = choose_meaning(
        configuration, Reference(reference.registry, reference.repository).with_default_tag(), talk
    )

    def attempt(source: RegistrySource, name: Reference) -> list[str]:
        try:
            return [f"{name.name}:{tag}" for tag in source.client.list_tags()]
        finally:
            source.close()

    names = try_candidates(context, configuration, meaning.candidates, attempt, access=access, talk=talk)
    if not names:
        raise NoSuchImage("the repository has no tags", where=text)
    return names
