"""Where images come from: a registry, an archive, another tool's store. A pull takes any of them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from hashlib import _Hash
    from typing import Protocol

    from usercontainerd.oci.digest import Digest
    from usercontainerd.oci.manifest import Descriptor, FetchedManifest

    class ImageSource(Protocol):
        """What a pull asks of a place that has images; ``registry.client.RegistryClient`` is one.

        Raises ``NoSuchImage``, ``PullDenied``, ``RegistryError``, ``InvalidFormat``, ``DigestMismatch``. One whose
        ``copy_blob`` may be called from several threads at once has an attribute ``parallel`` that is true.
        """

        def fetch_manifest(self, wanted: str, /) -> FetchedManifest:
            """Return a manifest or index, exactly as it is there, by tag or digest (then checked)."""

        def fetch_blob(self, blob: Descriptor, /, *, limit: int) -> bytes:
            """Return a small blob, checked."""

        def copy_blob(
            self,
            blob: Descriptor,
            write: Callable[[bytes], object],
            progress: Callable[[int], None] | None = None,
            /,
        ) -> None:
            """Hand a blob to ``write`` piece by piece; raises ``DigestMismatch`` at the end if it was another."""

        def close(self) -> None:
            """Give connections and files back."""

    class ResumableSource(ImageSource, Protocol):
        """A source that can give a blob from the middle on; it says so with an attribute ``resumable`` that is true."""

        def copy_blob(
            self,
            blob: Descriptor,
            write: Callable[[bytes], object],
            progress: Callable[[int], None] | None = None,
            /,
            *,
            start: int = 0,
            state: _Hash | None = None,
        ) -> None:
            """The same from byte ``start`` on; ``state`` is the hash of what is before, and of the whole in the end."""

    class UnpackedSource(ImageSource, Protocol):
        """A source whose layers are unpacked already: the compressed blobs that its manifest names are gone."""

        def describe_layers(self, diff_ids: Sequence[Digest], /) -> list[Descriptor]:
            """Return what ``copy_blob`` gives instead of the manifest's layers: their archives, by diffID."""
