"""Where signatures come from, who makes them, and when they are asked for: a pull, a load, a name for what is here."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.fakeregistry import FakeRegistry, Handler, build_tar, digest_of, file
from tests.support.signing import ACCEPT, APP, LONG_AGO, MULTI, REJECT, Place, Signing, claim, run
from usercontainerd.base.errors import HostError, InvalidFormat, PullDenied
from usercontainerd.definition.pull_policy import PullPolicy
from usercontainerd.engine.archives.loading import load_images, pull_archived
from usercontainerd.engine.images.local import list_images
from usercontainerd.engine.registries.endpoints import Conversation
from usercontainerd.engine.transfers.obtaining import pull_image


def by_key(path: str, identity: dict[str, str] | None = None) -> list[dict[str, object]]:
    rule = {} if identity is None else {"signedIdentity": identity}
    return [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": path, **rule}]


def files_of(place: Place) -> list[str]:
    """Every file of the store but for locks."""
    root = place.context.paths.data
    return sorted(
        os.path.join(directory, name)
        for directory, _, names in os.walk(root)
        for name in names
        if not directory.endswith("/locks")
    )


def test_what_skopeo_and_podman_sign(signing: Signing, place: Place) -> None:
    place.write_registries(lookaside=f"file://{place.top}/lookaside")
    variables = {"HOME": str(place.top), "GNUPGHOME": signing.gpg_home}
    options = ("--sign-by", signing.fingerprints["good"])
    target = "localhost:5000/signed/made"
    source = "docker://localhost:5000/busybox"
    run("skopeo", "copy", "-q", *options, source, f"docker://{target}:skopeo", variables=variables)
    run("podman", "pull", "-q", "localhost:5000/busybox:docker", variables=variables)
    run(
        "podman",
        "push",
        "-q",
        *options,
        "localhost:5000/busybox:docker",
        f"{target}:podman",
        variables=variables,
    )
    try:
        policy = place.write_policy(by_key(signing.public_key("good")))
        for tag in ("skopeo", "podman"):
            assert place.judge(f"{target}:{tag}", policy) == ""
        policy = place.write_policy(by_key(signing.public_key("other")))
        for tag in ("skopeo", "podman"):
            assert "does not trust" in place.judge(f"{target}:{tag}", policy)
    finally:
        run("podman", "system", "reset", "--force", variables=variables)


def ask_podman(place: Place, reference: str, policy: str) -> bool:
    """Whether ``podman pull`` takes it."""
    command = ["podman", "pull", "-q", "--signature-policy", policy, reference]
    result = subprocess.run(command, env=place.environment, capture_output=True, check=False, timeout=60)
    return result.returncode == 0


def test_podman_agrees(signing: Signing, place: Place) -> None:
    place.write_signatures(signing.digest, [signing.sign(claim(signing.digest, f"{APP}:1"))])
    good, other = by_key(signing.public_key("good")), by_key(signing.public_key("other"))
    try:
        for requirements, reference, expected in (
            (good, f"{APP}:1", True),
            (other, f"{APP}:1", False),
            (good, f"{APP}@{signing.digest}", True),
            # The tag does not matter beside a digest.
            (good, f"{APP}:2@{signing.digest}", True),
            (good, f"{APP}:other", False),
            (ACCEPT, f"{APP}:other", True),
            (REJECT, f"{APP}:1", False),
        ):
            policy = place.write_policy(requirements)
            ours = place.judge(reference, policy)
            assert (ours == "", ask_podman(place, reference, policy)) == (expected, expected), (
                reference,
                ours,
            )
    finally:
        run("podman", "system", "reset", "--force", variables={"HOME": str(place.top)})


@pytest.mark.usefixtures("signing")
def test_scopes_as_skopeo_finds_them(place: Place) -> None:
    path = place.top / "policy.json"
    for scopes, expected in (
        ({"localhost:5000": ACCEPT, "": REJECT}, True),
        ({"localhost": ACCEPT, "": REJECT}, False),
        ({"localhost:5000/signed": REJECT, f"{APP}:1": ACCEPT}, True),
        ({"localhost:5000/signed": ACCEPT, APP: REJECT}, False),
        ({"localhost:5000/sign": ACCEPT, "": REJECT}, False),
        ({f"{APP}:2": ACCEPT}, False),
        ({"": ACCEPT}, True),
    ):
        path.write_text(json.dumps({"default": REJECT, "transports": {"docker": scopes}}))
        ours = place.judge(f"{APP}:1", str(path))
        theirs = place.ask_skopeo(f"{APP}:1", str(path))
        assert (ours == "", theirs == "") == (expected, expected), (scopes, ours, theirs)


def test_an_index_is_judged_by_the_image_that_it_leads_to(signing: Signing, place: Place) -> None:
    index = json.loads(signing.manifest(signing.index_digest))
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    chosen = next(m["digest"] for m in index["manifests"] if m["platform"]["architecture"] == machine)
    policy = place.write_policy(by_key(signing.public_key("good")))
    # Signed is the index alone: that says nothing about its images, to skopeo neither.
    message = signing.sign(claim(signing.index_digest, f"{MULTI}:1"))
    place.write_signatures(signing.index_digest, [message], "signed/multi")
    assert "there is none" in place.judge(f"{MULTI}:1", policy)
    assert place.ask_skopeo(f"{MULTI}:1", policy)
    place.write_signatures(chosen, [signing.sign(claim(chosen, f"{MULTI}:1"))], "signed/multi")
    for reference in (f"{MULTI}:1", f"{MULTI}@{signing.index_digest}", f"{MULTI}@{chosen}"):
        assert place.judge(reference, policy) == ""
        assert place.ask_skopeo(reference, policy) == ""


def test_revoked_keys_and_subkeys(signing: Signing, place: Place) -> None:
    place.write_signatures(signing.digest, [signing.sign(claim(signing.digest, f"{APP}:1"), key="revoked")])
    policy = place.write_policy(by_key(signing.public_key("revoked")))
    assert place.judge(f"{APP}:1", policy) == ""
    signing.revoke("revoked")
    policy = place.write_policy(by_key(signing.public_key("revoked")))
    assert "revoked" in place.judge(f"{APP}:1", policy)
    assert place.ask_skopeo(f"{APP}:1", policy)
    # A subkey signs for its key.
    signing.gpg(*LONG_AGO, "--quick-add-key", signing.fingerprints["parent"], "ed25519", "sign", "0")
    place.write_signatures(signing.digest, [signing.sign(claim(signing.digest, f"{APP}:1"), key="parent")])
    policy = place.write_policy(by_key(signing.public_key("parent")))
    assert place.judge(f"{APP}:1", policy) == ""


def test_a_refusal_changes_nothing(signing: Signing, place: Place) -> None:
    accept = place.write_policy(ACCEPT)
    assert place.judge(f"{APP}:other", accept) == ""
    before = files_of(place)
    policy = place.write_policy(by_key(signing.public_key("good")))
    error = place.judge(f"{APP}:1", policy)
    assert error == (
        f"{APP}:1: the signature policy refuses it: a GPG signature is required, but there is none "
        f"(see policy.transports['docker']['localhost:5000/signed'][0] in {policy})"
    )
    assert files_of(place) == before
    # What is here already gets no new name either.
    run("skopeo", "copy", "-q", f"docker://{APP}:other", "docker://localhost:5000/signed/again:1")
    assert "there is none" in place.judge("localhost:5000/signed/again:1", policy)
    assert files_of(place) == before


def test_newer_keeps_what_is_here_and_says_why(signing: Signing, place: Place) -> None:
    here = pull_image(place.context, f"{APP}:1", signature_policy=place.write_policy(ACCEPT))
    notices: list[str] = []
    kept = pull_image(
        place.context,
        f"{APP}:1",
        policy=PullPolicy.NEWER,
        talk=Conversation(notice=notices.append),
        signature_policy=place.write_policy(by_key(signing.public_key("good"))),
    )
    assert kept.id == here.id
    assert len(notices) == 1
    assert "the signature policy refuses it" in notices[0]


@pytest.mark.parametrize("policy", [None, "missing", "unreadable", "damaged"])
def test_without_a_policy_nothing_comes(place: Place, policy: str | None) -> None:
    path = place.config / "policy.json"
    if policy == "damaged":
        path.write_text('{"default": [{"type": "insecureAcceptAnything"}], "defaults": []}')
    elif policy == "unreadable":
        path.write_text("{}")
        path.chmod(0)
    if policy == "missing":
        assert "no signature policy" in place.judge(f"{APP}:1", "/nonexistent/policy.json")
    elif policy is None:
        # The system's applies where the user has none.
        pull_image(place.context, "localhost:5000/busybox")
        return
    else:
        with pytest.raises((InvalidFormat, HostError), match=str(path)):
            pull_image(place.context, "localhost:5000/busybox")
    assert not list_images(place.context)


def test_without_gpg_nothing_that_needs_it_comes(signing: Signing, place: Place) -> None:
    place.write_signatures(signing.digest, [signing.sign(claim(signing.digest, f"{APP}:1"))])
    policy = place.write_policy(by_key(signing.public_key("good")))
    environment = tuple({**place.environment, "PATH": "/nonexistent"}.items())
    place.context = replace(place.context, environment=environment)
    assert "install gnupg2" in place.judge(f"{APP}:1", policy)
    assert not list_images(place.context)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A web server whose top is ``lookaside`` of the place."""
    (tmp_path / "lookaside").mkdir()
    handler = partial(QuietHandler, directory=str(tmp_path / "lookaside"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_lookaside_of_a_web_server(signing: Signing, place: Place, web: str) -> None:
    place.write_signatures(signing.digest, [signing.sign(claim(signing.digest, f"{APP}:1"))])
    place.write_registries(sigstore=web)
    policy = place.write_policy(by_key(signing.public_key("good")))
    assert place.judge(f"{APP}:1", policy) == ""
    assert place.ask_skopeo(f"{APP}:1", policy) == ""
    assert "there is none" in place.judge(f"{APP}:other", policy)


def test_lookaside_that_is_not_there(signing: Signing, place: Place) -> None:
    place.write_registries(lookaside="http://127.0.0.1:1")
    policy = place.write_policy(by_key(signing.public_key("good")))
    assert "127.0.0.1:1" in place.judge(f"{APP}:1", policy)
    assert not list_images(place.context)


def test_signatures_that_the_registry_keeps(signing: Signing, place: Place) -> None:
    with FakeRegistry() as registry:
        registry.add_image("app", "1", [build_tar(file("x", b"y"))])
        digest = digest_of(registry.manifests["app", "1"][0])
        message = signing.sign(claim(digest, f"{registry.host}/app:1"))
        (place.config / "registries.conf").write_text(
            f'[[registry]]\nlocation = "{registry.host}"\ninsecure = true\n'
        )
        policy = place.write_policy(by_key(signing.public_key("good")), registry.host)

        def announce(handler: Handler) -> None:
            handler.answer(200, b"{}", {"X-Registry-Supports-Signatures": "1"})

        def answer(handler: Handler) -> None:
            entry = {"schemaVersion": 2, "name": f"{digest}@x", "type": "atomic"}
            content = {**entry, "content": base64.b64encode(message).decode()}
            handler.answer(200, json.dumps({"signatures": [{**content, "type": "other"}, content]}).encode())

        registry.rules[f"/extensions/v2/app/signatures/{digest}"] = answer
        assert "there is none" in place.judge(f"{registry.host}/app:1", policy)
        registry.rules["/v2/"] = announce
        assert place.judge(f"{registry.host}/app:1", policy) == ""
        registry.rules[f"/extensions/v2/app/signatures/{digest}"] = lambda handler: handler.answer(500)
        registry.add_image("app", "2", [build_tar(file("x", b"z"))])
        assert place.judge(f"{registry.host}/app:2", policy) != ""


def test_archives_and_directories(signing: Signing, place: Place) -> None:
    path = place.top / "policy.json"
    archive, layout, plain = place.top / "a.tar", place.top / "layout", place.top / "plain"
    for target in (f"docker-archive:{archive}:x/app:1", f"oci:{layout}", f"dir:{plain}"):
        run("skopeo", "copy", "-q", "docker://localhost:5000/busybox", target)

    def write(**transports: object) -> str:
        named = {name.replace("_", "-"): scopes for name, scopes in transports.items()}
        path.write_text(json.dumps({"default": REJECT, "transports": named}))
        return str(path)

    for source in (archive, layout, plain):
        with pytest.raises(PullDenied, match=r"refuses it.*policy\['default'\]|refuses it.*policy.default"):
            load_images(place.context, str(source), signature_policy=write())
    assert files_of(place) == []
    load_images(place.context, str(archive), signature_policy=write(docker_archive={"": ACCEPT}))
    pull_archived(place.context, f"oci:{layout}", signature_policy=write(oci={str(place.top): ACCEPT}))
    with pytest.raises(PullDenied):
        load_images(place.context, str(plain), signature_policy=write(dir={f"{plain}/x": ACCEPT}))
    # A directory has room for signatures, but no name: the policy has to say which one was signed.
    digest = digest_of((plain / "manifest.json").read_bytes())
    (plain / "signature-1").write_bytes(signing.sign(claim(digest, f"{APP}:1")))
    key = signing.public_key("good")
    exact = {"type": "exactReference", "dockerReference": f"{APP}:1"}
    with pytest.raises(PullDenied, match="does not accept"):
        load_images(place.context, str(plain), signature_policy=write(dir={"": by_key(key)}))
    load_images(place.context, str(plain), signature_policy=write(dir={"": by_key(key, exact)}))


def test_import_asks_as_podman_does(place: Place) -> None:
    archive = place.top / "files.tar"
    archive.write_bytes(build_tar(file("x", b"y")))
    policy = place.config / "policy.json"
    for scopes, expected in (({}, False), ({"tarball": {"": ACCEPT}}, True)):
        policy.write_text(json.dumps({"default": REJECT, "transports": scopes}))
        for program in ("podman", "usercontainer"):
            result = subprocess.run(
                [program, "import", str(archive), "localhost/made:1"],
                env=place.environment,
                capture_output=True,
                check=False,
                timeout=60,
            )
            assert (result.returncode == 0) == expected, (program, result.stderr)
    run("podman", "system", "reset", "--force", variables=place.environment)


def test_a_mirror_serves_what_is_signed_for_the_name_that_was_asked_for(
    signing: Signing, place: Place
) -> None:
    (place.config / "registries.conf").write_text(
        '[[registry]]\nprefix = "upstream.example.com/signed"\nlocation = "upstream.example.com/signed"\n'
        '[[registry.mirror]]\nlocation = "localhost:5000/signed"\ninsecure = true\n'
    )
    key = signing.public_key("good")
    policy = place.write_policy(by_key(key), "upstream.example.com")
    name = "upstream.example.com/signed/app:1"
    for claimed, expected in ((name, True), (f"{APP}:1", False)):
        # The signature lies where the mirror has the image.
        place.write_signatures(signing.digest, [signing.sign(claim(signing.digest, claimed))])
        ours, theirs = place.judge(name, policy), place.ask_skopeo(name, policy)
        assert (ours == "", theirs == "") == (expected, expected), (ours, theirs)


def test_command(signing: Signing, place: Place) -> None:
    place.write_signatures(signing.digest, [b"garbage"])
    policy = place.write_policy(by_key(signing.public_key("good")))
    command = ["usercontainer", "pull", "-q", "--signature-policy", policy, f"{APP}:1"]
    result = subprocess.run(
        command, env=place.environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 125
    assert result.stderr.startswith(f"Error: {APP}:1: the signature policy refuses it: ")
    assert result.stdout == ""


def test_image_trust(signing: Signing, place: Place) -> None:
    place.write_registries(lookaside="https://signatures.example.com/x")

    def trust(*words: str) -> str:
        command = ["usercontainer", "image", "trust", *words]
        return run(*command, variables=place.environment).decode()

    # The first change makes a policy of one's own, as the system's was.
    trust("set", "-t", "reject", "default")
    trust("set", "-f", signing.public_key("good"), "localhost:5000/signed")
    trust("set", "-t", "accept", "docker.io/library")
    policy = str(place.config / "policy.json")
    assert trust("show") == (
        "TRANSPORT    NAME                    TYPE     ID                 STORE\n"
        "all          default                 reject\n"
        "repository   docker.io/library       accept\n"
        "repository   localhost:5000/signed   signed   good@example.com   https://signatures.example.com/x\n"
    )
    options = ("--policypath", policy, "--registrypath", str(place.config / "registries.d"))
    theirs = json.loads(
        run("podman", "image", "trust", "show", "--json", *options, variables=place.environment)
    )
    ours = json.loads(trust("show", "--json"))
    assert ours[2].pop("gpg_id") == "good@example.com"  # podman wants a program gpg2 for it
    assert ours == theirs
    assert json.loads(trust("show", "--raw"))["default"] == REJECT
    place.write_signatures(signing.digest, [signing.sign(claim(signing.digest, f"{APP}:1"))])
    pull_image(place.context, f"{APP}:1")
    with pytest.raises(PullDenied):
        pull_image(place.context, "localhost:5000/busybox")


def test_a_message_that_swells_is_refused(signing: Signing, place: Place) -> None:
    """A few kilobytes of signature that hold 50 MB: valid JSON, and nobody's image."""
    payload = claim(signing.digest, f"{APP}:1") + b" " * 50_000_000
    message = signing.sign(payload, options=("--compress-algo", "zlib", "-z", "9"))
    assert len(message) < 1_000_000
    place.write_signatures(signing.digest, [message])
    policy = place.write_policy(by_key(signing.public_key("good")))
    assert "does not count" in place.judge(f"{APP}:1", policy)
