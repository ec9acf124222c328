"""Whether an image may come in: the signature policy, asked when its manifest is known and nothing else is fetched.

``read_admission(context)`` gives, for each origin, what a ``Pull`` takes as ``approve``. A policy that is missing or
damaged lets nothing in.
"""

from __future__ import annotations

import os

from usercontainerd.trust.evaluation import Evaluation, Tools
from usercontainerd.trust.policy import Policy, policy_files, read_policy
from usercontainerd.trust.scopes import (
    ImageIdentity,
    identify_by_path,
    identify_in_docker_archive,
    identify_in_registry,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from usercontainerd.engine.context import Context
    from usercontainerd.engine.transfers.resolution import ResolvedImage
    from usercontainerd.oci.digest import Digest
    from usercontainerd.oci.reference import Reference
    from usercontainerd.registry.client import RegistryClient
    from usercontainerd.trust.signatures import Signature

    Approve = Callable[[ResolvedImage], None]


def read_admission(context: Context, policy_file: str | None = None) -> Admission:
    """Read the policy: ``policy_file`` (``--signature-policy``), else the user's, else the system's.

    Raises ``PullDenied`` if there is none, ``InvalidFormat``, ``HostError``.
    """
    files = policy_files(list_home_configs(context)) if policy_file is None else [policy_file]
    return Admission(context, read_policy(files))


class Admission:
    """A policy, ready to be asked about images of any origin."""

    def __init__(self, context: Context, policy: Policy) -> None:
        self._context = context
        self._policy = policy

    def for_registry(self, name: Reference, find_client: Callable[[], RegistryClient]) -> Approve:
        """The approval of an image that is called ``name``.

        ``find_client`` gives what asks where it lies, which may be a mirror; called only if a signature is wanted.
        """

        def fetch(image: ResolvedImage) -> list[Signature]:
            # Who wants no signature does not pay for what fetches them.
            from usercontainerd.engine.registries.signature_fetching import fetch_registry_signatures

            configs = list_home_configs(self._context)
            return fetch_registry_signatures(self._context, configs, find_client(), image.documents[-1])

        return self._approval(identify_in_registry(name), fetch)

    def for_docker_archive(self, name: Reference | None) -> Approve:
        """The approval of an image of an archive as ``docker save`` makes them, which has no place for signatures."""
        return self._approval(identify_in_docker_archive(name), lambda _image: [])

    def for_path(
        self,
        transport: str,
        path: str | None,
        read_files: Callable[[Digest | None], Sequence[bytes]] = lambda _instance: (),
    ) -> Approve:
        """The approval of an image in a directory or file: ``transport`` is dir, oci or oci-archive.

        ``path`` is None for standard input. ``read_files`` gives the files ``signature-N`` of the manifest, or of the
        one with that digest which an index leads to.
        """

        def fetch(image: ResolvedImage) -> list[Signature]:
            from usercontainerd.trust.signatures import parse_signature

            instance = image.documents[-1].digest if len(image.documents) > 1 else None
            return [parse_signature(data, path or transport) for data in read_files(instance)]

        return self._approval(identify_by_path(transport, path), fetch)

    def for_tarball(self, name: Reference | None) -> Approve:
        """The approval of an image that is made of a plain archive of files, as ``import`` does."""
        return self._approval(ImageIdentity("tarball", (), name), lambda _image: [])

    def for_identity(self, identity: ImageIdentity) -> Approve:
        """The approval of an image of any other origin (see ``trust.scopes``) that has no signatures."""
        return self._approval(identity, lambda _image: [])

    def _approval(
        self, identity: ImageIdentity, fetch: Callable[[ResolvedImage], Sequence[Signature]]
    ) -> Approve:
        def approve(image: ResolvedImage, /) -> None:
            # The manifest itself, not the index that led to it: so containers/image signs and checks, too.
            manifest = image.documents[-1].data
            tools = Tools(dict(self._context.environment).get("PATH", os.defpath), self._temporary())
            Evaluation(self._policy, identity, manifest, lambda: fetch(image), tools).run()

        return approve

    def _temporary(self) -> str | None:
        """The user's runtime directory: nobody else can look into it, and it is in memory."""
        directory = self._context.paths.runtime_root
        return directory if os.access(directory, os.W_OK) else None


def list_home_configs(context: Context) -> list[str]:
    """The directories of the user's configuration.

    ``~/.config`` counts beside XDG_CONFIG_HOME: podman and skopeo look there alone, and a policy that they obey must
    not be passed over.
    """
    return list(dict.fromkeys((os.path.dirname(context.paths.config), f"{context.home}/.config")))
