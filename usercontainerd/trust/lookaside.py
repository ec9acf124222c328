"""registries.d: where the signatures of an image lie (containers-registries.d(5)).

One directory counts, the user's if there is one. Of the keys in a section, each is taken from the most specific
section that has it, as containers/image does.
"""

from __future__ import annotations

import os
from urllib.parse import quote, unquote, urlsplit

from usercontainerd.base.errors import HostError, InvalidFormat
from usercontainerd.base.records import dataclass
from usercontainerd.kernel.smallfiles import read_small_file
from usercontainerd.trust.scopes import list_reference_scopes
from usercontainerd.trust.yaml import parse_mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from usercontainerd.oci.digest import Digest
    from usercontainerd.oci.reference import Reference
    from usercontainerd.trust.yaml import Value

MAX_FILE = 1024 * 1024
MAX_FILES = 1000
SYSTEM_DIRECTORIES = ("/etc/containers/registries.d", "/usr/share/containers/registries.d")


@dataclass(frozen=True)
class Section:
    """What one section says; None where it says nothing."""

    lookaside: str | None
    attachments: bool | None


@dataclass(frozen=True)
class SignatureStorage:
    """Where the signatures of one repository are: ``base`` is a file: or https: URL, without the repository."""

    base: str
    attachments: bool

    def locate(self, repository: str, digest: Digest, number: int) -> str:
        """Return the URL of the signature ``number`` (from 1) of a manifest."""
        return (
            f"{self.base.rstrip('/')}/{quote(repository)}@{digest.algorithm}={digest.hex}/signature-{number}"
        )


@dataclass(frozen=True)
class LookasideConfiguration:
    """All files together. ``home`` is the user's home directory."""

    default: Section
    sections: Mapping[str, Section]
    home: str

    def locate(self, reference: Reference) -> SignatureStorage:
        """Return where the signatures of ``reference`` are; without a word of the files, in the user's directory."""
        names = [name for name in list_reference_scopes(reference) if not name.startswith("*.")]
        sections = [*(self.sections[name] for name in names if name in self.sections), self.default]
        base = next((each.lookaside for each in sections if each.lookaside), None)
        attachments = next((each.attachments for each in sections if each.attachments is not None), False)
        return SignatureStorage(base or f"file://{self.home}/.local/share/containers/sigstore", attachments)


def lookaside_directories(home_configs: Sequence[str]) -> list[str]:
    """Which directory counts, strongest first."""
    return [*(f"{directory}/containers/registries.d" for directory in home_configs), *SYSTEM_DIRECTORIES]


def read_lookaside(directories: Iterable[str], home: str) -> LookasideConfiguration:
    """Read the first directory that exists. Raises ``InvalidFormat``, ``HostError``."""
    files: list[tuple[str, str]] = []
    for directory in directories:
        try:
            names = sorted(name for name in os.listdir(directory) if name.endswith(".yaml"))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise HostError(f"cannot be read: {error.strerror}", where=directory) from error
        if len(names) > MAX_FILES:
            raise HostError(f"holds more than {MAX_FILES} files", where=directory)
        files = [(path, _read_text(path)) for path in (f"{directory}/{name}" for name in names)]
        break
    return merge_lookaside(files, home)


def _read_text(path: str) -> str:
    data = read_small_file(path, MAX_FILE)
    if data is None:
        raise HostError("is gone since its directory was read", where=path)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidFormat("is not UTF-8", where=path) from None


def merge_lookaside(files: Iterable[tuple[str, str]], home: str) -> LookasideConfiguration:
    """Put the texts of the files together; a section that is there twice is an error. Raises ``InvalidFormat``."""
    default: Section | None = None
    sections: dict[str, Section] = {}
    for path, text in files:
        document = parse_mapping(text, path)
        if (value := document.get("default-docker")) is not None:
            if default is not None:
                raise InvalidFormat("default-docker is in another file too", where=path)
            default = _parse_section("default-docker", value, path)
        docker = document.get("docker")
        if docker is None:
            continue
        if not isinstance(docker, dict):
            raise InvalidFormat("docker must be a mapping", where=path)
        for name, value in docker.items():
            if name in sections:
                raise InvalidFormat(f"docker: {name} is in another file too", where=path)
            sections[name] = _parse_section(name, value, path)
    return LookasideConfiguration(default or Section(None, None), sections, home)


def _parse_section(name: str, value: Value, path: str) -> Section:
    if value is None:
        return Section(None, None)
    if not isinstance(value, dict):
        raise InvalidFormat(f"{name} must be a mapping", where=path)
    lookaside = value.get("lookaside") or value.get("sigstore")
    if lookaside is not None:
        if not isinstance(lookaside, str):
            raise InvalidFormat(f"{name}: lookaside must be a URL", where=path)
        check_lookaside_url(lookaside, path)
    attachments = value.get("use-sigstore-attachments")
    if attachments is not None and not isinstance(attachments, bool):
        raise InvalidFormat(f"{name}: use-sigstore-attachments must be true or false", where=path)
    return Section(lookaside, attachments)


def check_lookaside_url(url: str, where: str) -> None:
    """Raise ``InvalidFormat`` unless ``url`` is a file:, https: or http: URL without user name, query and fragment."""
    try:
        parts = urlsplit(url)
        fine = parts.username is None and not parts.query and not parts.fragment
    except ValueError:
        fine = False
    else:
        if parts.scheme == "file":
            fine = fine and parts.netloc in ("", "localhost") and parts.path.startswith("/")
        else:
            # The signature itself says whether it counts: where it came from does not matter.
            fine = fine and parts.scheme in ("https", "http") and bool(parts.hostname)
    if not fine:
        raise InvalidFormat(
            f"{url[:200]!r} is not a usable URL for signatures", where=where, hint="file:, https:"
        )


def read_local_signature(url: str, limit: int) -> bytes | None:
    """Read a ``file:`` URL; None if it is not there. Raises ``HostError``."""
    path = unquote(urlsplit(url).path)
    return read_small_file(path, limit, what="the signature")
