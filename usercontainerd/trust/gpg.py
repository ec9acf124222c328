"""OpenPGP signatures, checked by the system's gpg in a home directory of its own that is gone afterwards.

Only the keys of the policy are in it: the user's own keyring, configuration and agent play no part, nothing is
looked up in a network. gpg rather than gpgv, since gpgv takes no notice of keys that have expired or were revoked.
What gpg found is read from its status lines (doc/DETAILS of GnuPG), never from what it says to people.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile

from usercontainerd.base.errors import HostError
from usercontainerd.trust.payload import MAX_PAYLOAD
from usercontainerd.trust.rejection import SignatureRejected

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Self

TIMEOUT = 60.0  # seconds for one run of gpg
MAX_STATUS = 1024 * 1024
_OPTIONS = (
    "--no-options",
    "--batch",
    "--no-tty",
    "--no-autostart",
    "--no-auto-key-retrieve",
    "--no-auto-check-trustdb",
    "--disable-dirmngr",
    "--trust-model",
    "always",
)
_REASONS = {
    "BADSIG": "it is not valid: what it signs was changed",
    "ERRSIG": "it cannot be checked",
    "NO_PUBKEY": "it is of a key that the policy does not trust",
    "EXPSIG": "it has expired",
    "EXPKEYSIG": "its key has expired",
    "REVKEYSIG": "its key was revoked",
    "NODATA": "it is not a GPG signature",
}


def find_gpg(search_path: str) -> str:
    """Return where gpg is, looking in the directories of ``search_path``. Raises ``HostError``."""
    found = shutil.which("gpg", path=search_path) or shutil.which("gpg2", path=search_path)
    if found is None:
        raise HostError(
            "gpg is not installed, and the policy wants a GPG signature checked",
            hint="install gnupg2 (Debian: gnupg)",
        )
    return found


class Keyring:
    """The keys of one requirement in a home directory of their own; use as a context manager.

    ``directory`` is where that directory is made (None: where temporary files belong).
    """

    def __init__(self, keys: Iterable[bytes], *, program: str, directory: str | None = None) -> None:
        self._keys = tuple(keys)
        self._program = program
        self._directory = directory
        self._home = ""
        self._trusted: frozenset[str] = frozenset()

    def __enter__(self) -> Self:
        self._home = tempfile.mkdtemp(prefix="usercontainerd-gpg-", dir=self._directory)  # mode 700
        try:
            self._trusted = frozenset(fingerprint for key in self._keys for fingerprint in self._import(key))
            if not self._trusted:
                raise SignatureRejected("the policy's key files hold no GPG public key")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the directory, and the one for sockets that an import makes below /run/user for every home."""
        gpgconf = f"{os.path.dirname(self._program)}/gpgconf"
        if os.access(gpgconf, os.X_OK):
            try:
                self._spawn([gpgconf, "--homedir", self._home, "--remove-socketdir"], b"")
            except (OSError, subprocess.TimeoutExpired):
                pass  # an empty directory stays until the user logs out
        shutil.rmtree(self._home, ignore_errors=True)

    def _import(self, key: bytes) -> list[str]:
        _, status, _ = self._run(("--import",), key)
        return [words[1] for name, words in status if name == "IMPORT_OK" and len(words) > 1]

    def verify(self, message: bytes) -> bytes:
        """Return what a signed message holds.

        Raises ``SignatureRejected`` unless one of the keys has signed it, and is valid today.
        """
        output = f"{self._home}/payload"
        try:
            code, status, _ = self._run(
                ("--output", output, "--max-output", str(MAX_PAYLOAD), "--decrypt"), message
            )
            check_status(code, status, self._trusted)
            with open(output, "rb") as file:
                return file.read(MAX_PAYLOAD)
        except FileNotFoundError:
            raise SignatureRejected("it signs nothing") from None
        finally:
            for name in ("payload", "status"):
                if os.path.lexists(f"{self._home}/{name}"):
                    os.unlink(f"{self._home}/{name}")

    def list_users(self) -> list[str]:
        """Return the user IDs of the keys, which anybody could have written into them."""
        _, _, listing = self._run(("--with-colons", "--fixed-list-mode", "--list-keys"), b"")
        return parse_users(listing.decode("utf-8", "replace"))

    def _run(self, arguments: Sequence[str], data: bytes) -> tuple[int, list[tuple[str, list[str]]], bytes]:
        """Run gpg; return its exit status, its status lines and what it wrote."""
        status = f"{self._home}/status"
        command = [self._program, "--homedir", self._home, *_OPTIONS, "--status-file", status, *arguments]
        try:
            result = self._spawn(command, data)
            with open(status, "rb") as file:
                text = file.read(MAX_STATUS).decode("utf-8", "replace")
        except subprocess.TimeoutExpired:
            raise SignatureRejected(f"gpg has not checked it within {TIMEOUT:.0f} s") from None
        except OSError as error:
            raise HostError(f"gpg cannot be run: {error.strerror}", where=self._program) from error
        os.unlink(status)
        return result.returncode, parse_status(text), result.stdout

    def _spawn(self, command: Sequence[str], data: bytes) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            command,
            input=data,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PATH": "/usr/bin:/bin", "HOME": self._home, "LC_ALL": "C"},
            cwd="/",
            timeout=TIMEOUT,
            check=False,
        )


def parse_status(text: str) -> list[tuple[str, list[str]]]:
    """Split ``[GNUPG:] NAME ARGUMENT…`` lines."""
    lines = [line.split(" ") for line in text.split("\n") if line.startswith("[GNUPG:] ")]
    return [(words[1], words[2:]) for words in lines]


def parse_users(text: str) -> list[str]:
    """The user IDs in the output of ``gpg --with-colons --list-keys``. Pure."""
    fields = [line.split(":") for line in text.splitlines() if line.startswith("uid:")]
    # Bytes that would be read as something else are written as in C.
    return [re.sub(r"\\x([0-9a-f]{2})", lambda m: chr(int(m[1], 16)), f[9]) for f in fields if len(f) > 9]


def check_status(code: int, status: Sequence[tuple[str, Sequence[str]]], trusted: frozenset[str]) -> None:
    """Raise ``SignatureRejected`` unless there is exactly one signature, valid now and of a trusted key. Pure."""
    names = [name for name, _ in status]
    for name, reason in _REASONS.items():
        if name in names:
            if name == "ERRSIG" and "NO_PUBKEY" in names:
                continue
            raise SignatureRejected(reason)
    if code != 0 or names.count("DECRYPTION_OKAY") or names.count("PLAINTEXT") != 1:
        raise SignatureRejected("it is not a signed GPG message")
    if any(names.count(name) != 1 for name in ("NEWSIG", "GOODSIG", "VALIDSIG")):
        raise SignatureRejected("it does not hold exactly one good signature")
    words = next(words for name, words in status if name == "VALIDSIG")
    # Field 10 is the primary key's fingerprint, which differs if a subkey signed. Class 00 and 01: over a document.
    if len(words) < 10 or words[9] not in trusted:
        raise SignatureRejected(_REASONS["NO_PUBKEY"])
    if words[8] not in ("00", "01"):
        raise SignatureRejected("it is not a signature over a document")
