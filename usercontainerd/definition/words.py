"""Words that follow a grammar or that the kernel knows: images, accounts, host names, signals, capabilities."""

from __future__ import annotations

from usercontainerd.definition.values import take_line
from usercontainerd.definition.vocabulary import normalise_capability, normalise_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.definition.place import Place

_ALNUM = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_LOWER = "abcdefghijklmnopqrstuvwxyz0123456789"
_SEPARATORS = (
    "..",
    "._",
    "_.",
    ".-",
    "-.",
    "_-",
    "-_",
    "___",
)  # between two letters stands ., _, __ or any number of -
_DIGESTS = {"sha256": 64, "sha512": 128}
MAX_REFERENCE = 1024
MAX_REPOSITORY = 255
MAX_ID = 2**32 - 2  # (uid_t) -1 is no ID
MAX_APPLICATION = 255  # D-Bus specification, "Bus names"
MAX_HOSTNAME = 64  # the kernel's HOST_NAME_MAX


def take_image(value: object, place: Place) -> str | None:
    """An image's reference; whether it exists shows when it is pulled."""
    text = take_line(value, place)
    if text is None:
        return None
    reason = find_image_fault(text)
    if reason is not None:
        place.error(f'"{text}" is no image reference: {reason}')
        return None
    return text


def find_image_fault(text: str) -> str | None:
    """Say what breaks the grammar of references, or None.

    The grammar is the distribution project's, as ``oci.reference`` parses it; that the two agree is tested.
    """
    if "://" in text:
        return "it has no scheme; write it as registry/name:tag"
    name, at, digest = text.partition("@")
    if at and not _is_digest(digest):
        return "what follows @ is no digest such as sha256:0123…"
    slash = name.rfind("/")
    colon = name.find(":", slash + 1)
    if colon >= 0:
        name, tag = name[:colon], name[colon + 1 :]
        if not 0 < len(tag) <= 128 or tag.strip(_ALNUM + "_.-") or tag[0] in ".-":
            return "what follows the last colon is no tag"
    registry, slash_sign, path = name.partition("/")
    if not slash_sign or not (
        "." in registry or ":" in registry or registry == "localhost" or registry != registry.lower()
    ):
        path = name
    elif not _is_host(registry):
        return f'"{registry}" is no name of a registry'
    if path != path.lower():
        return "the name must be in lower case"
    if len(text) > MAX_REFERENCE or len(path) > MAX_REPOSITORY:
        return "it is too long"
    return next(filter(None, map(_find_part_fault, path.split("/"))), None)


def _is_digest(text: str) -> bool:
    algorithm, _, encoded = text.partition(":")
    return len(encoded) == _DIGESTS.get(algorithm) and encoded.strip("0123456789abcdef") == ""


def _is_host(text: str) -> bool:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host = text
    elif not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) <= 65535):
        return False
    if host.startswith("[") and host.endswith("]"):
        return len(host) > 2 and host[1:-1].strip("0123456789abcdefABCDEF:") == ""
    return len(text) <= MAX_REPOSITORY and all(
        label.strip(_ALNUM + "-") == "" and label[:1] not in {"", "-"} and label[-1] != "-"
        for label in host.split(".")
    )


def _find_part_fault(part: str) -> str | None:
    if not part:
        return "a part of the name is empty"
    if (
        part.strip(_LOWER + "._-")
        or part[0] in "._-"
        or part[-1] in "._-"
        or any(pair in part for pair in _SEPARATORS)
    ):
        return f'"{part}" is no part of a name: letters, digits, and between them one of . _ __ -'
    return None


def take_user(value: object, place: Place) -> str | None:
    """A name or number; with a group after a colon, as for docker."""
    text = str(value) if _is_id(value) else take_line(value, place, "a user's name or number")
    if text is None:
        return None
    user, colon, group = text.partition(":")
    if _is_account(user) and (not colon or _is_account(group)):
        return text
    place.error(f'"{text}" is no user: write a name or a number, and a group after a colon')
    return None


def take_group(value: object, place: Place) -> str | None:
    """A group's name or number."""
    text = str(value) if _is_id(value) else take_line(value, place, "a group's name or number")
    if text is None or _is_account(text):
        return text
    place.error(f'"{text}" is no group: write a name or a number')
    return None


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_ID


def _is_account(text: str) -> bool:
    if text.isascii() and text.isdigit():
        return len(text) <= 10 and int(text) <= MAX_ID
    return 0 < len(text) <= 256 and text[0] != "-" and not text.rstrip("$").strip(_ALNUM + "_.-")


def take_hostname(value: object, place: Place) -> str | None:
    """A host name (hostname(7))."""
    text = take_line(value, place)
    if text is None:
        return None
    labels = text.split(".")
    good = all(
        0 < len(x) <= 63 and not x.strip(_ALNUM + "-_") and x[0] != "-" and x[-1] != "-" for x in labels
    )
    if good and len(text) <= MAX_HOSTNAME:
        return text
    place.error(f'"{text}" is no host name: letters, digits and -, in parts with dots between, at most 64')
    return None


def take_signal(value: object, place: Place) -> str | None:
    """A signal by name or number."""
    text = str(value) if _is_id(value) else take_line(value, place, "a signal's name or number")
    if text is None:
        return None
    signal = normalise_signal(text)
    if signal is None:
        from usercontainerd.definition.vocabulary import SIGNALS

        words = (*SIGNALS, *(name.removeprefix("SIG") for name in SIGNALS))
        place.error(f'"{text}" is no signal', place.suggest(text, words))
    return signal


def take_capability(value: object, place: Place) -> str | None:
    """A capability by name, with or without CAP_, in any case."""
    text = take_line(value, place, "a capability's name")
    if text is None:
        return None
    capability = normalise_capability(text)
    if capability is None:
        from usercontainerd.definition.vocabulary import CAPABILITIES

        names = sorted((*CAPABILITIES, *(name.removeprefix("CAP_") for name in CAPABILITIES)))
        place.error(f'"{text}" is no capability', place.suggest(text, names))
    return capability


def take_application(value: object, place: Place) -> str | None:
    """An application's ID: a D-Bus name of three parts or more (Flatpak, "Conventions")."""
    text = take_line(value, place)
    if text is None:
        return None
    parts = text.split(".")
    well_formed = all(
        part and part.strip(_ALNUM + "_-") == "" and part[0] not in "0123456789" for part in parts
    )
    if len(text) > MAX_APPLICATION or len(parts) < 3 or not well_formed:
        place.error(f'"{text}" is no application\'s ID, such as org.example.App')
        return None
    return text
