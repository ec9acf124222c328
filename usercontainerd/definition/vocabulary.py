"""Words that the kernel knows: signals (signal(7)) and capabilities (capabilities(7)).

Written down here because importing ``signal`` builds enumerations, which the generator need not wait for.
"""

from __future__ import annotations

_NAMES = (
    "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG "
    "XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"
)
SIGNALS = {f"SIG{name}": number for number, name in enumerate(_NAMES.split(), 1)}
_OTHER_NAMES = {"SIGPOLL": "SIGIO", "SIGCLD": "SIGCHLD", "SIGIOT": "SIGABRT", "SIGUNUSED": "SIGSYS"}
FIRST_REAL_TIME = 34  # glibc keeps two of the kernel's for itself
LAST_REAL_TIME = 64

_CAPABILITIES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
    "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT "
    "SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE "
    "AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ "
    "PERFMON BPF CHECKPOINT_RESTORE"
)
CAPABILITIES = frozenset("CAP_" + name for name in _CAPABILITIES.split())


def normalise_signal(text: str) -> str | None:
    """Return systemd's name for ``TERM``, ``SIGTERM``, ``15`` or ``RTMIN+3``; None if it is no signal."""
    word = text.strip().upper()
    if word.isascii() and word.isdigit():
        return _name_of(int(word)) if len(word) <= 3 else None
    word = word if word.startswith("SIG") else f"SIG{word}"
    word = _OTHER_NAMES.get(word, word)
    return word if word in SIGNALS else _normalise_real_time(word)


def _name_of(number: int) -> str | None:
    for name, each in SIGNALS.items():
        if each == number:
            return name
    return f"SIGRTMIN+{number - FIRST_REAL_TIME}" if FIRST_REAL_TIME <= number <= LAST_REAL_TIME else None


def _normalise_real_time(word: str) -> str | None:
    for base, start, sign in (("SIGRTMIN", FIRST_REAL_TIME, "+"), ("SIGRTMAX", LAST_REAL_TIME, "-")):
        if word == base:
            return _name_of(start)
        if word.startswith(base + sign):
            digits = word[len(base) + 1 :]
            if digits.isascii() and digits.isdigit() and len(digits) <= 2:
                return _name_of(start + int(sign + digits))
    return None


def find_signal_number(name: str) -> int:
    """Return the number of a signal by systemd's name for it."""
    base, plus, offset = name.partition("+")
    return FIRST_REAL_TIME + int(offset or 0) if base == "SIGRTMIN" else SIGNALS[base + plus + offset]


def normalise_capability(text: str) -> str | None:
    """Return ``CAP_NET_RAW`` for ``net_raw``, and ``ALL``; None if it is no capability."""
    word = text.strip().upper()
    if word == "ALL":
        return word
    word = word if word.startswith("CAP_") else f"CAP_{word}"
    return word if word in CAPABILITIES else None
