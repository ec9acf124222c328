"""What refers to something is found again, also at a registry that keeps no list of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.fakeregistry import OCI_INDEX, OCI_MANIFEST, FakeRegistry, Handler, digest_of
from tests.support.registryclients import Make
from usercontainerd.base.errors import RegistryError
from usercontainerd.oci.digest import Digest
from usercontainerd.registry.listing import list_referrers
from usercontainerd.registry.referrers import add_entry, find_subject, name_referrers_tag
from usercontainerd.registry.upload import Uploader

SUBJECT = Digest(digest_of(b"what it is about"))
DESCRIPTOR = {"mediaType": OCI_MANIFEST, "digest": SUBJECT, "size": 16}
EMPTY = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of(b"{}"), "size": 2}


def build(kind: str = "", **members: Any) -> bytes:
    """A manifest that refers to ``SUBJECT``."""
    document = {
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": EMPTY, "layers": [],
        "subject": DESCRIPTOR, "annotations": {"made": "today"}, **members,
    }  # fmt: skip
    return json.dumps(document | ({"artifactType": kind} if kind else {})).encode()


def put(registry: FakeRegistry, make_client: Make, data: bytes, media_type: str = OCI_MANIFEST) -> None:
    Uploader(make_client().session).put_manifest(Digest(digest_of(data)), data, media_type)


def read_list(registry: FakeRegistry) -> list[dict[str, Any]]:
    data, media_type = registry.manifests["app", name_referrers_tag(SUBJECT)]
    assert media_type == OCI_INDEX
    entries: list[dict[str, Any]] = json.loads(data)["manifests"]
    return entries


def test_a_registry_without_the_list(registry: FakeRegistry, make_client: Make) -> None:
    theirs = {**EMPTY, "artifactType": "theirs", "data": "e30="}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [theirs], "annotations": {"a": "b"}}
    tag = name_referrers_tag(SUBJECT)
    registry.add_manifest("app", tag, json.dumps(index).encode(), OCI_INDEX)
    signature, plain = build("signature"), build()
    listing = build(mediaType=OCI_INDEX, manifests=[], artifactType="list")
    listing = json.dumps(
        {key: value for key, value in json.loads(listing).items() if key not in ("config", "layers")}
    ).encode()
    for data, media_type in ((signature, OCI_MANIFEST), (plain, OCI_MANIFEST), (listing, OCI_INDEX)):
        for _ in range(2):  # the second time it is there already
            put(registry, make_client, data, media_type)
    assert read_list(registry) == [
        theirs,
        *(
            {
                "mediaType": media_type, "digest": digest_of(data), "size": len(data),
                "annotations": {"made": "today"}, "artifactType": kind,
            }
            for data, media_type, kind in (
                (signature, OCI_MANIFEST, "signature"),
                (plain, OCI_MANIFEST, EMPTY["mediaType"]),
                (listing, OCI_INDEX, "list"),
            )
        ),
    ]  # fmt: skip
    assert json.loads(registry.manifests["app", tag][0])["annotations"] == {"a": "b"}
    found = list_referrers(make_client().session, SUBJECT, "signature")
    assert [each.digest for each in found] == [digest_of(signature)]


def test_a_registry_with_the_list(registry: FakeRegistry, make_client: Make) -> None:
    data = build("signature")
    path = f"/v2/app/manifests/{digest_of(data)}"

    def take(handler: Handler) -> None:
        handler.read_body()
        handler.answer(201, b"", {"OCI-Subject": SUBJECT})

    registry.uploads.manifest_rule = take
    put(registry, make_client, data)
    assert [each for each in registry.paths() if "/manifests/" in each] == [path]


def test_two_who_write_at_once(registry: FakeRegistry, make_client: Make) -> None:
    """What is overwritten between writing and looking again is written once more, but not for ever."""
    tag = name_referrers_tag(SUBJECT)
    others = build("another")
    found = find_subject(others, Digest(digest_of(others)), OCI_MANIFEST)
    assert found is not None
    empty = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode()
    overwriting = [2]

    def overwrite(handler: Handler) -> None:
        if handler.command == "PUT":
            registry.uploads.answer(handler)
            return
        if overwriting[0] and registry.manifests.get(("app", tag), (b"", ""))[0].find(b"ours") > 0:
            overwriting[0] -= 1
            registry.manifests["app", tag] = (add_entry(empty, found[1]), OCI_INDEX)
        data, media_type = registry.manifests.get(("app", tag), (empty, OCI_INDEX))
        handler.answer(200, data, {"Content-Type": media_type})

    registry.rules[f"/v2/app/manifests/{tag}"] = overwrite
    put(registry, make_client, build("ours"))
    assert [each["artifactType"] for each in read_list(registry)] == ["another", "ours"]
    overwriting[0] = 1000
    del registry.manifests["app", tag]
    with pytest.raises(RegistryError, match="others write the list"):
        put(registry, make_client, build("ours"))


@pytest.mark.parametrize("there", [build("no index"), b"{}", b"[", b'{"manifests": 7}'])
def test_something_else_under_the_tag(registry: FakeRegistry, make_client: Make, there: bytes) -> None:
    """It is left as it is, and the one who pushes hears what is and what is not there."""
    registry.add_manifest("app", name_referrers_tag(SUBJECT), there, "application/json")
    data = build("signature")
    with pytest.raises(RegistryError, match="is in the registry, but not in its list"):
        put(registry, make_client, data)
    assert registry.manifests["app", name_referrers_tag(SUBJECT)][0] == there
    assert registry.manifests["app", digest_of(data)][0] == data


def test_names() -> None:
    assert name_referrers_tag(SUBJECT) == SUBJECT.replace(":", "-")
    sha512 = Digest(f"sha512:{'0' * 128}")
    assert name_referrers_tag(sha512) == f"sha512-{'0' * 64}"
    plain = build().replace(b'"subject"', b'"other"')
    assert find_subject(plain, Digest(digest_of(plain)), OCI_MANIFEST) is None
