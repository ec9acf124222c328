"""Whether an image may come in: the signature policy, asked when its manifest is known and nothing else is fetched.

``read_admission(context)`` gives, for each origin, what a ``Pull`` takes as ``approve``. A policy that is missing or
damaged lets nothing in.
"""

from __future__ import annotations

import base64
import binascii
import os

from usercontainerd.base.errors import InvalidFormat
from usercontainerd.base.typedjson import parse_json
from usercontainerd.oci.digest import compute_digest
from usercontainerd.trust.evaluation import Evaluation, Tools
from usercontainerd.trust.policy import Policy, policy_files, read_policy
from usercontainerd.trust.scopes import (
    ImageIdentity,
    identify_by_path,
    identify_in_docker_archive,
    identify_in_registry,
)
from usercontainerd.trust.signatures import (
    COSIGN_PAYLOAD,
    MAX_SIGNATURE,
    MAX_SIGNATURES,
    SigstoreSignature,
    SimpleSignature,
    parse_signature,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from usercontainerd.engine.context import Context
    from usercontainerd.engine.resolution import ResolvedImage
    from usercontainerd.oci.digest import Digest
    from usercontainerd.oci.manifest import FetchedManifest
    from usercontainerd.oci.reference import Reference
    from usercontainerd.registry.client import RegistryClient
    from usercontainerd.trust.lookaside import SignatureStorage
    from usercontainerd.trust.signatures import Signature

    Approve = Callable[[ResolvedImage], None]

MAX_LIST = 16 * 1024 * 1024  # bytes of the registry's own list of signatures


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
            return fetch_registry_signatures(self._context, find_client(), image.documents[-1])

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


def fetch_registry_signatures(
    context: Context, client: RegistryClient, document: FetchedManifest
) -> list[Signature]:
    """Fetch the signatures of a manifest: the registry's own list, else the lookaside; and what is attached."""
    # Who wants no signature does not pay for a reader of YAML.
    from usercontainerd.registry.signature_files import fetch_signature_list
    from usercontainerd.trust.lookaside import lookaside_directories, read_lookaside

    # They are kept by this digest, whichever the image was asked for by.
    manifest = compute_digest(document.data)
    directories = lookaside_directories(list_home_configs(context))
    place = client.session.endpoint.reference
    storage = read_lookaside(directories, context.home).locate(place)
    listing = fetch_signature_list(client.session, manifest, limit=MAX_LIST)
    if listing is None:
        signatures = _fetch_lookaside(context, storage, place, manifest)
    else:
        signatures = parse_signature_list(listing, client.repository)
    if storage.attachments:
        signatures += _fetch_attached(client, manifest)
    return signatures


def parse_signature_list(data: bytes, where: str) -> list[Signature]:
    """Parse a registry's own list of signatures; those of kinds that are not known are left out. Pure."""
    document = parse_json(data, "signatures", limit=MAX_LIST, source=where)
    signatures: list[Signature] = []
    for entry in document.get("signatures").elements(limit=MAX_SIGNATURES):
        if entry.get("schemaVersion").integer(0) != 2 or entry.get("type").text("") != "atomic":
            continue
        try:
            message = base64.b64decode(entry.get("content").text().encode("ascii"), validate=True)
        except (binascii.Error, ValueError):
            raise InvalidFormat(f"{entry.path}.content is not valid Base64", where=where) from None
        signatures.append(SimpleSignature(message))
    return signatures


def _fetch_lookaside(
    context: Context, storage: SignatureStorage, place: Reference, manifest: Digest
) -> list[Signature]:
    with LookasideReader(context, storage) as reader:
        signatures: list[Signature] = []
        # One more than allowed: too many is an error, not a reason to stop looking.
        for number in range(1, MAX_SIGNATURES + 2):
            url = storage.locate(place.repository, manifest, number)
            data = reader.read(url)
            if data is None:
                break
            signatures.append(parse_signature(data, url))
        return signatures


class LookasideReader:
    """Reads files of a lookaside, local or remote; use as a context manager."""

    def __init__(self, context: Context, storage: SignatureStorage) -> None:
        self._is_local = storage.base.startswith("file:")
        if not self._is_local:
            from urllib.parse import urlsplit

            from usercontainerd.registry.certificates import find_certificates
            from usercontainerd.registry.transport import Transport

            environment = dict(context.environment)
            host = urlsplit(storage.base).netloc
            home_config = os.path.dirname(context.paths.config)
            self._transport = Transport(environment, find_certificates(host, home_config, environment))

    def __enter__(self) -> LookasideReader:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._is_local:
            self._transport.close()

    def read(self, url: str) -> bytes | None:
        """Return a file, None if it is not there. Raises ``HostError``, ``RegistryError``."""
        if self._is_local:
            from usercontainerd.trust.lookaside import read_local_signature

            return read_local_signature(url, MAX_SIGNATURE)
        from usercontainerd.registry.signature_files import fetch_signature_file

        return fetch_signature_file(self._transport, url, limit=MAX_SIGNATURE)


def _fetch_attached(client: RegistryClient, manifest: Digest) -> list[Signature]:
    from usercontainerd.registry.signature_files import fetch_attachments

    attached = fetch_attachments(client, manifest, COSIGN_PAYLOAD, most=MAX_SIGNATURES, limit=MAX_SIGNATURE)
    return [SigstoreSignature(layer.media_type, data, layer.annotations) for layer, data in attached]
