"""Logins with a real registry (TLS, htpasswd), shared with the real Podman and skopeo; credential helpers; tokens."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

import pytest

from tests.support.containers import run
from tests.support.fakeregistry import FakeRegistry, Handler, build_tar, file
from tests.support.homes import Home
from tests.support.realregistry import PASSWORD, USER, RealRegistry

SUCCESS = "Login Succeeded!\n"


@pytest.fixture
def private(secure_registry: RealRegistry, home: Home) -> RealRegistry:
    """A registry that wants a login and has busybox, and whose authority the home trusts."""
    if b'"busybox"' not in secure_registry.ask("/v2/_catalog", user=USER)[2]:
        run(
            "skopeo", "copy", "-q", "--src-tls-verify=false", "--dest-creds", f"{USER}:{PASSWORD}",
            "--dest-cert-dir", str(secure_registry.certificates),
            "docker://localhost:5000/busybox", f"docker://{secure_registry.host}/busybox",
        )  # fmt: skip
    directory = home.config / "containers" / "certs.d" / secure_registry.host
    directory.parent.mkdir(parents=True)
    directory.symlink_to(secure_registry.certificates)
    home.configure("")
    return secure_registry


def log_in(home: Home, *words: str) -> subprocess.CompletedProcess[str]:
    return home.run_ours("login", "-u", USER, "--password-stdin", *words, text=f"{PASSWORD}\n")


def test_without_a_login(home: Home, private: RealRegistry) -> None:
    result = home.run_ours("pull", f"{private.host}/busybox")
    assert result.returncode == 125
    assert "usercontainer login" in result.stderr


def test_our_login_is_podmans_and_skopeos(home: Home, private: RealRegistry) -> None:
    assert log_in(home, private.host).stdout == SUCCESS
    authfile = home.runtime / "containers" / "auth.json"
    assert authfile.stat().st_mode & 0o777 == 0o600
    ours = home.run_ours("pull", "-q", f"{private.host}/busybox")
    podman = home.run_podman("pull", "-q", f"{private.host}/busybox")
    assert ours.stdout == podman.stdout != ""
    skopeo = home.run("skopeo", "inspect", "--format={{.Name}}", f"docker://{private.host}/busybox")
    assert skopeo.stdout == f"{private.host}/busybox\n"
    for program in (home.run_ours, home.run_podman):
        assert program("login", "--get-login", private.host).stdout == f"{USER}\n"
    again = home.run_ours("login", private.host)
    assert again.stdout == (
        f"Authenticating with existing credentials for {private.host}\n"
        f"Existing credentials are valid. Already logged in to {private.host}\n"
    )
    assert home.run_podman("login", private.host).stdout == again.stdout
    assert home.run_ours("logout", private.host).stdout == f"Removed login credentials for {private.host}\n"
    for program in (home.run_ours, home.run_podman):
        gone = program("login", "--get-login", private.host)
        assert (gone.returncode, gone.stdout) == (125, "")
        assert f"not logged into {private.host}" in gone.stderr


def test_podmans_login_is_ours(home: Home, private: RealRegistry) -> None:
    assert home.run_podman("login", "-u", USER, "-p", PASSWORD, private.host).returncode == 0
    assert home.run_ours("pull", "-q", f"{private.host}/busybox").returncode == 0
    assert home.run_ours("logout", "--all").stdout == "Removed login credentials for all registries\n"
    assert home.run_podman("login", "--get-login", private.host).returncode == 125


def test_login_for_a_path(home: Home, private: RealRegistry) -> None:
    """It is for that repository alone, to Podman, too."""
    assert log_in(home, f"{private.host}/busybox").stdout == SUCCESS
    assert home.run_podman("login", "--get-login", f"{private.host}/busybox").stdout == f"{USER}\n"
    assert home.run_ours("pull", "-q", f"{private.host}/busybox").returncode == 0
    other = home.run_ours("pull", f"{private.host}/other")
    assert (other.returncode, "need a login" in other.stderr) == (125, True)
    assert log_in(home, f"{private.host}/busybox:1").returncode == 125


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-u", USER, "-p", "wrong"], "invalid username/password"),
        (["-u", USER, "--password-stdin", "-p", "x"], "cannot be given together"),
        (["--password-stdin"], "needs --username"),
        (["-u", USER], "there is no terminal to ask on"),
        (["--authfile=a", "--compat-auth-file=b", "-u", USER, "-p", "x"], "cannot be given together"),
        (["--secret=x"], "there are no secrets"),
    ],
)
def test_logins_that_fail(home: Home, private: RealRegistry, words: list[str], message: str) -> None:
    result = home.run_ours("login", *words, private.host)
    assert result.returncode == 125
    assert message in result.stderr
    assert "wrong" not in result.stderr
    assert not (home.runtime / "containers" / "auth.json").exists()


def test_chosen_files(home: Home, private: RealRegistry) -> None:
    mine, dockers = home.directory / "mine.json", home.directory / "dockers" / "config.json"
    used = log_in(home, "--authfile", str(mine), "-v", private.host)
    assert used.stdout == f"Used: {mine}\n{SUCCESS}"
    for environment in ({}, {"REGISTRY_AUTH_FILE": str(mine)}):
        home.environment |= environment
        words = [] if environment else ["--authfile", str(mine)]
        assert home.run_podman("pull", "-q", *words, f"{private.host}/busybox").returncode == 0
        assert home.run_ours("pull", "-q", *words, f"{private.host}/busybox").returncode == 0
    del home.environment["REGISTRY_AUTH_FILE"]
    home.environment["DOCKER_CONFIG"] = str(dockers.parent)
    assert log_in(home, private.host).stdout == SUCCESS
    assert list(json.loads(dockers.read_text())["auths"]) == [private.host]
    assert home.run_podman("login", "--get-login", private.host).stdout == f"{USER}\n"
    assert home.run_ours("logout", "--compat-auth-file", str(dockers), private.host).returncode == 0
    missing = home.run_ours("logout", "--authfile", f"{home.directory}/missing", private.host)
    assert "there is no such file" in missing.stderr
    assert not (home.runtime / "containers" / "auth.json").exists()


def test_questions_at_the_terminal(home: Home, private: RealRegistry) -> None:
    with home.type_at("usercontainer", "login", private.host) as (process, keyboard):
        keyboard.answer("Username: ", USER)
        keyboard.answer("Password: ", PASSWORD)
        seen = keyboard.wait_for("Login Succeeded!")
        assert process.wait(timeout=60) == 0
    assert PASSWORD not in seen
    assert home.run_podman("login", "--get-login", private.host).stdout == f"{USER}\n"


def test_creds(home: Home, private: RealRegistry) -> None:
    result = home.run_ours("pull", "-q", "--creds", f"{USER}:{PASSWORD}", f"{private.host}/busybox")
    assert result.returncode == 0, result.stderr
    refused = home.run_ours("pull", "-q", "--creds", f"{USER}:wrong", f"{private.host}/busybox")
    assert refused.returncode == 125
    assert "wrong" not in refused.stderr


def encode(user: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:x".encode()).decode()}


FILES = {
    "run/containers/auth.json": {
        "auths": {
            "a.io": encode("run"),
            "a.io/team": encode("run-team"),
            "a.io/empty": {},
            "docker.io/me": encode("me"),
        }
    },
    ".config/containers/auth.json": {
        "auths": {"a.io": encode("no"), "b.io/team/app": encode("config"), "c.io": {}}
    },
    ".docker/config.json": {
        "auths": {
            "https://index.docker.io/v1/": encode("hub"),
            "https://c.io/v2/": encode("docker"),
            "d.io": encode("d"),
        },
        "psFormat": "x",
    },
    ".dockercfg": {"https://e.io/v1/": encode("legacy"), "d.io": encode("no")},
}
KEYS = [
    "a.io", "a.io/x", "a.io/team", "a.io/team/app", "a.io/teams", "a.io:443",
    "b.io", "b.io/team", "b.io/team/app", "c.io", "c.io/x", "d.io", "e.io", "e.io/x",
    "docker.io", "docker.io/me", "docker.io/you", "f.io",
]  # fmt: skip


def test_every_key_means_the_same_login_as_to_podman(home: Home) -> None:
    for name, document in FILES.items():
        path = home.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document))
    for key in KEYS:
        ours, podman = (program("login", "--get-login", key) for program in (home.run_ours, home.run_podman))
        assert (ours.returncode, ours.stdout) == (podman.returncode, podman.stdout), key


# Credential helpers

HELPER = """#!/usr/bin/python3
import json, os, sys
path = os.path.dirname(os.path.abspath(__file__)) + "/logins.json"
logins = json.load(open(path)) if os.path.exists(path) else {}
given = sys.stdin.read()
if sys.argv[1] == "store":
    login = json.loads(given)
    logins[login["ServerURL"]] = login
elif sys.argv[1] == "list":
    print(json.dumps({server: login["Username"] for server, login in logins.items()}))
elif given.strip() not in logins:
    print("credentials not found in native keychain")
    sys.exit(1)
elif sys.argv[1] == "get":
    print(json.dumps(logins[given.strip()]))
else:
    del logins[given.strip()]
json.dump(logins, open(path, "w"))
"""


@pytest.fixture
def helper(home: Home) -> Path:
    """The logins of ``docker-credential-box``, which is on the PATH."""
    directory = home.directory / "bin"
    directory.mkdir()
    program = directory / "docker-credential-box"
    program.write_text(HELPER)
    program.chmod(0o755)
    home.environment["PATH"] = f"{directory}:{home.environment['PATH']}"
    return directory / "logins.json"


@pytest.mark.parametrize("by", ["auth.json", "registries.conf"])
def test_helpers_are_shared_with_podman(home: Home, private: RealRegistry, helper: Path, by: str) -> None:
    authfile = home.runtime / "containers" / "auth.json"
    if by == "auth.json":
        authfile.parent.mkdir()
        authfile.write_text(json.dumps({"credHelpers": {private.host: "box"}}))
    else:
        home.configure('credential-helpers = ["box"]')
    result = log_in(home, "-v", private.host)
    assert result.stdout == f"Used: docker-credential-box\n{SUCCESS}", result.stderr
    assert json.loads(helper.read_text())[private.host]["Secret"] == PASSWORD
    if authfile.exists():
        assert "auths" not in authfile.read_text()
    assert home.run_podman("pull", "-q", f"{private.host}/busybox").returncode == 0
    assert home.run_ours("pull", "-q", f"{private.host}/busybox").returncode == 0
    assert home.run_ours("logout", private.host).returncode == 0
    assert json.loads(helper.read_text()) == {}
    # And the reverse.
    assert home.run_podman("login", "-u", USER, "-p", PASSWORD, private.host).returncode == 0
    assert home.run_ours("login", "--get-login", private.host).stdout == f"{USER}\n"
    assert home.run_ours("logout", "--all").returncode == 0
    assert json.loads(helper.read_text()) == {}


def test_dockers_own_store(home: Home, private: RealRegistry, helper: Path) -> None:
    configuration = home.directory / ".docker" / "config.json"
    configuration.parent.mkdir()
    configuration.write_text('{"credsStore": "box", "psFormat": "x"}')
    assert log_in(home, "--compat-auth-file", str(configuration), private.host).stdout == SUCCESS
    assert json.loads(helper.read_text())[private.host]["Username"] == USER
    assert home.run_ours("pull", "-q", f"{private.host}/busybox").returncode == 0
    gone = home.run_ours("logout", private.host)
    assert gone.returncode == 125
    assert "docker-credential-box has a login for it" in gone.stderr


# Tokens


class TokenService:
    """Gives a token to whoever has the password; notes what was asked."""

    def __init__(self, registry: FakeRegistry) -> None:
        self.asked: list[str] = []
        registry.token = "granted"
        registry.rules["/token"] = self.answer

    def answer(self, handler: Handler) -> None:
        self.asked.append(handler.path)
        expected = base64.b64encode(b"user:right").decode()
        if handler.headers.get("Authorization") == f"Basic {expected}":
            handler.answer(200, b'{"token": "granted"}')
        else:
            handler.answer(401, b'{"errors": [{"message": "no"}]}')


def test_registry_with_tokens(home: Home) -> None:
    with FakeRegistry() as registry:
        home.configure(f'[[registry]]\nlocation = "{registry.host}"\ninsecure = true')
        service = TokenService(registry)
        registry.add_image("app", "latest", [build_tar(file("word"))])
        wrong = home.run_ours("login", "-u", "user", "-p", "wrong", registry.host)
        assert wrong.returncode == 125
        assert "invalid username/password" in wrong.stderr
        right = home.run_ours("login", "-u", "user", "--password-stdin", registry.host, text="right")
        assert right.stdout == SUCCESS, right.stderr
        assert not any("repository" in path for path in service.asked)
        assert home.run_ours("pull", "-q", f"{registry.host}/app").returncode == 0
        # A token service of somebody else's never sees the password, and its token proves nothing.
        registry.realm = "https://elsewhere.test/token"
        astray = home.run_ours("login", "-u", "user", "-p", "right", registry.host)
        assert astray.returncode == 125
        assert "a password is not sent to another domain" in astray.stderr


def test_create_takes_the_login_of_the_command_line(home: Home, private: RealRegistry) -> None:
    image = f"{private.host}/busybox"
    denied = home.run_ours("create", "-q", "--name", "with-login", image, "true")
    assert (denied.returncode, "need a login" in denied.stderr) == (125, True)
    made = home.run_ours(
        "create", "-q", "--name", "with-login", "--creds", f"{USER}:{PASSWORD}", image, "true"
    )
    assert made.returncode == 0, made.stderr


def test_registry_that_wants_no_login_takes_any(home: Home) -> None:
    """As with Podman."""
    home.configure('[[registry]]\nlocation = "localhost:5000"\ninsecure = true')
    for name in ("localhost:5000", "http://localhost:5000/v2/"):
        for program in (home.run_ours, home.run_podman):
            result = program("login", "-u", "any", "--password-stdin", name, text="thing")
            assert result.stdout == SUCCESS, result.stderr
    assert home.run_ours("logout", "localhost:5000").returncode == 0
