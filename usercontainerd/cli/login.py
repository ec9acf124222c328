"""``usercontainer login`` and ``logout``."""

from __future__ import annotations

from usercontainerd.base.errors import InvalidArgument, NoSuchLogin, PullDenied
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import write_error, write_output
from usercontainerd.cli.registry_options import AUTHFILE, CERT_DIR, TLS_VERIFY, find_authfile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.cli.call import Call
    from usercontainerd.engine.context import Context
    from usercontainerd.registry.authentication import Credentials

COMPAT = Option("--compat-auth-file FILE", "docker's file with logins, in the form that docker reads")
LOGIN = Verb(
    "login",
    "[REGISTRY[/PATH]]",
    "Log in to a registry",
    (
        AUTHFILE,
        CERT_DIR,
        COMPAT,
        Option("--get-login", "print the user that is logged in"),
        Option("-p, --password PASSWORD", "the password; others can see it: better use --password-stdin"),
        Option("--password-stdin", "read the password from standard input"),
        TLS_VERIFY,
        Option("-u, --username USER", "the user's name"),
        Option("-v, --verbose", "print where the login is kept"),
    ),
    most=1,
    details="Asks for what is not given, checks it with the registry, and keeps it.",
    refused={"--secret": "there are no secrets to take a password from; use --password-stdin"},
)
LOGOUT = Verb(
    "logout",
    "[REGISTRY[/PATH]]",
    "Log out of a registry",
    (
        Option("-a, --all", "forget all logins"),
        AUTHFILE,
        COMPAT,
    ),
    most=1,
)


def run_login(call: Call) -> int:
    """Log in, or tell who is."""
    _check_password_options(call)
    one = _Login(call)
    if call.options.flag("get-login"):
        one.print_user()
    elif not one.is_still_good():
        one.log_in()
    return 0


def _check_password_options(call: Call) -> None:
    options = call.options
    if options.flag("password-stdin"):
        if options.given("password"):
            raise InvalidArgument("--password-stdin and --password cannot be given together")
        if not options.value("username"):
            raise InvalidArgument("--password-stdin needs --username")
    elif options.given("password"):
        write_error("Warning: others can see the options of a process: use --password-stdin\n")


class _Login:
    """One call of ``login``: ``known`` is the login that is there before."""

    def __init__(self, call: Call) -> None:
        from usercontainerd.engine.registries.access import RegistryAccess
        from usercontainerd.engine.registries.logins import LoginPlace, find_known_login

        self.options = options = call.options
        self.context = call.context()
        self.key, self.registry = _read_key(call, self.context)
        self.place = LoginPlace(self.context, options.value("authfile"), options.value("compat-auth-file"))
        self.known = find_known_login(self.context, self.place, self.key)
        self.access = RegistryAccess(
            cert_dir=options.value("cert-dir"),
            tls_verify=options.flag("tls-verify") if options.given("tls-verify") else None,
        )

    def print_user(self) -> None:
        """``--get-login``."""
        if self.known is None or not self.known.credentials.user:
            raise NoSuchLogin(f"not logged into {self.key}")
        write_output(f"{self.known.credentials.user}\n")

    def is_still_good(self) -> bool:
        """Tell whether the known login is all that is wanted."""
        from usercontainerd.engine.registries.logins import check_credentials

        if self.known is None:
            return False
        if self.known.credentials.identity_token:
            raise InvalidArgument(
                f"you are logged into {self.key} with an identity token",
                where=self.known.origin,
                hint="log out first",
            )
        if self.options.given("username") or self.options.given("password"):
            return False
        write_output(f"Authenticating with existing credentials for {self.key}\n")
        try:
            check_credentials(self.context, self.registry, self.known.credentials, self.access)
        except PullDenied:
            write_output("Existing credentials are invalid, please enter valid username and password\n")
            return False
        write_output(f"Existing credentials are valid. Already logged in to {self.registry}\n")
        return True

    def log_in(self) -> None:
        """Check a new login, and keep it."""
        from usercontainerd.engine.registries.logins import check_credentials, keep_login

        credentials = self._read_credentials()
        try:
            check_credentials(self.context, self.registry, credentials, self.access)
        except PullDenied as error:
            raise PullDenied(
                f'logging into "{self.key}": invalid username/password', hint=str(error)
            ) from error
        kept = keep_login(self.place, self.key, credentials)
        if self.options.flag("verbose"):
            write_output(f"Used: {kept}\n")
        write_output("Login Succeeded!\n")

    def _read_credentials(self) -> Credentials:
        """Take user and password from the options, and ask for what they do not say."""
        from usercontainerd.cli.terminal import ask_line, ask_secret, has_keyboard
        from usercontainerd.engine.registries.logins import read_password
        from usercontainerd.registry.authentication import Credentials

        user, password = self.options.value("username") or "", self.options.value("password") or ""
        if self.options.flag("password-stdin"):
            password = read_password(0)
        if not (user and password) and not has_keyboard():
            raise InvalidArgument(
                "user name or password is missing, and there is no terminal to ask on",
                hint="-u USER --password-stdin",
            )
        if not user:
            before = self.known.credentials.user if self.known is not None else ""
            user = ask_line(f"Username ({before}): " if before else "Username: ").strip() or before
        if not password:
            password = ask_secret("Password: ")
        if not user or ":" in user:
            raise InvalidArgument("a user name is not empty, and has no colon")
        return Credentials(user, password)


def _read_key(call: Call, context: Context) -> tuple[str, str]:
    from usercontainerd.engine.registries.logins import choose_registry, parse_login_key

    return parse_login_key(call.words[0] if call.words else choose_registry(context))


def run_logout(call: Call) -> int:
    """Forget one login, or all."""
    from usercontainerd.engine.registries.logins import (
        LoginPlace,
        find_known_login,
        forget_all_logins,
        forget_login,
    )

    context = call.context()
    place = LoginPlace(context, find_authfile(call), find_authfile(call, COMPAT))
    if call.options.flag("all"):
        if call.words:
            raise InvalidArgument("--all takes no arguments")
        forget_all_logins(place)
        write_output("Removed login credentials for all registries\n")
        return 0
    key, _ = _read_key(call, context)
    if not forget_login(place, key):
        known = find_known_login(context, place, key)
        hint = (
            None if known is None else f"{known.origin} has a login for it: see --authfile, or docker logout"
        )
        raise NoSuchLogin(f"not logged into {key}", hint=hint)
    write_output(f"Removed login credentials for {key}\n")
    return 0


VERBS = {"login": (LOGIN, run_login), "logout": (LOGOUT, run_logout)}
