"""``usercontainer manifest``: the same lists as Podman makes of the same images, and names shared with images."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from tests.support.places import Place

BUSYBOX = "localhost:5000/busybox:latest"
MULTI = "localhost:5000/multi:latest"


def podman(*words: str) -> str:
    result = subprocess.run(["podman", *words], capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout


def read_list(place: Place, name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(place.run("manifest", "inspect", name).stdout)
    return document


def test_same_as_podman(store_place: Place) -> None:
    """Step by step, each tool with its own store."""
    store_place.run("pull", "-q", BUSYBOX)
    podman("pull", "-q", "--tls-verify=false", BUSYBOX)
    podman("manifest", "rm", "--ignore", "mylist")
    digest = "sha256:"
    steps = [
        ("create", "mylist"),
        ("add", "mylist", BUSYBOX),
        ("add", "--all", "--tls-verify=false", "mylist", "docker://localhost:5000/multi"),
        ("add", "--tls-verify=false", "mylist", "docker://localhost:5000/busybox:docker"),
        (
            "annotate",
            "--arch",
            "arm",
            "--variant",
            "v7",
            "--os-version",
            "5",
            "--annotation",
            "a=b",
            "mylist",
            "D",
        ),
        ("annotate", "--index", "--annotation", "top=1", "mylist"),
        ("create", "--amend", "--annotation", "more=2", "mylist"),
    ]
    for step in steps:
        words = [digest if word == "D" else word for word in step]
        ours, theirs = store_place.run("manifest", *words).stdout, podman("manifest", *words)
        assert len(ours) == len(theirs) == 65, step
        found = read_list(store_place, "mylist")
        expected = json.loads(podman("manifest", "inspect", "mylist"))
        if expected["manifests"]:  # an empty list of Podman's is one of Docker's
            assert found == expected, step
            digest = expected["manifests"][0]["digest"]
    ours = store_place.run("manifest", "remove", "mylist", digest).stdout
    assert ours == store_place.run("manifest", "create", "--amend", "mylist").stdout
    podman("manifest", "remove", "mylist", digest)
    assert read_list(store_place, "mylist") == json.loads(podman("manifest", "inspect", "mylist"))
    podman("manifest", "rm", "mylist")


def test_names_are_shared_with_images(store_place: Place) -> None:
    run = store_place.run
    run("pull", "-q", BUSYBOX)
    index = run("manifest", "create", "mine", BUSYBOX).stdout.strip()
    listed = run("images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").stdout.splitlines()
    assert f"localhost/mine:latest {index[:12]}" in listed
    assert run("images", "-q", "--filter", "manifest=true").stdout.split() == [index[:12]]
    assert run("images", "-q", "--no-trunc", "--filter", "manifest=false").stdout.count("sha256:") == 1
    # Where an image is wanted, the one for this machine is meant.
    (shown,) = json.loads(run("image", "inspect", "mine").stdout)
    assert BUSYBOX in shown["RepoTags"]
    for words in (("manifest", "create", "mine"), ("manifest", "create", "--amend", BUSYBOX)):
        refused = run(*words, check=False)
        assert refused.returncode == 125
        assert "already" in refused.stderr
    run("tag", "mine", "localhost/other:1")
    run("manifest", "annotate", "--index", "--annotation", "x=y", "other:1")
    assert read_list(store_place, "mine")["annotations"] == {"x": "y"}
    assert run("manifest", "exists", "other:1").returncode == 0
    assert run("image", "exists", "other:1").returncode == 0
    assert run("untag", "mine", "other:1").returncode == 0
    assert run("manifest", "exists", "other:1", check=False).returncode == 1
    # A name goes to what gets it last.
    run("tag", BUSYBOX, "localhost/mine")
    assert run("manifest", "exists", "mine", check=False).returncode == 1
    assert run("manifest", "exists", index[:10]).returncode == 0
    assert run("rmi", index[:8]).stdout == f"Deleted: {index}\n"
    assert store_place.findings("--max", "0", expected=0) == []
    assert run("manifest", "inspect", BUSYBOX, check=False).stderr.endswith("is an image, not an index\n")


def test_rm(store_place: Place) -> None:
    run = store_place.run
    first = run("manifest", "create", "one").stdout.strip()
    run("tag", "one", "two")
    assert run("manifest", "rm", "one").stdout == "Untagged: localhost/one:latest\n"
    assert run("manifest", "rm", "two").stdout == f"Untagged: localhost/two:latest\nDeleted: {first}\n"
    assert run("manifest", "rm", "two", check=False).returncode == 125
    assert run("manifest", "rm", "--ignore", "two").stdout == ""
    second = run("manifest", "create", "one").stdout.strip()
    assert run("rmi", "one").stdout == f"Untagged: localhost/one:latest\nDeleted: {second}\n"
    run("pull", "-q", BUSYBOX)
    refused = run("manifest", "rm", BUSYBOX, check=False)
    assert refused.returncode == 125
    assert "there is no index" in refused.stderr
    run("manifest", "create", "one", BUSYBOX)
    run("rmi", "-a", "-f")
    assert run("images", "-q").stdout == ""


def test_what_is_added(store_place: Place) -> None:
    run = store_place.run
    run("manifest", "create", "some", f"docker://{MULTI}")  # for this machine only
    (one,) = read_list(store_place, "some")["manifests"]
    run("manifest", "create", "--all", "every", f"docker://{MULTI}")
    every = read_list(store_place, "every")["manifests"]
    assert one in every
    assert len(every) > 1
    run("manifest", "create", "--all", "copy", "every")
    assert read_list(store_place, "copy") == read_list(store_place, "every")
    archive = store_place.root.parent / "busybox.tar"
    subprocess.run(
        ["skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{BUSYBOX}", f"oci-archive:{archive}"],
        check=True,
    )
    run("manifest", "add", "some", f"oci-archive:{archive}", "--os", "plan9", "--annotation", "from=archive")
    *_, last = read_list(store_place, "some")["manifests"]
    assert last["platform"]["os"] == "plan9"
    assert last["annotations"] == {"from": "archive"}
    # A registry's list without one here.
    assert read_list(store_place, MULTI)["manifests"] == every


def test_errors(store_place: Place) -> None:
    run = store_place.run
    run("manifest", "create", "mine")
    for words, message in (
        (("add", "nolist", BUSYBOX), "there is no index 'nolist'"),
        (("add", "mine", "localhost:5000/nosuch"), "nosuch"),
        (("annotate", "mine", f"sha256:{'0' * 64}", "--arch", "x"), "is not in the index"),
        (("annotate", "mine"), "an argument is missing"),
        (("annotate", "--index", "--arch", "x", "mine"), "--index"),
        (("annotate", "--subject", "x", "mine", "y"), "--subject"),
        (("remove", "mine", f"sha256:{'0' * 64}"), "is not in the index"),
        (("create", "Upper"), "lower case"),
        (("create", f"x@sha256:{'0' * 64}"), "digest"),
        (("add", "--artifact", "mine", "x"), "files are not put"),
        (("create", "--annotation", "x", "new"), "NAME=VALUE"),
        (("inspect", "localhost:5000/busybox"), "is an image, not an index"),
    ):
        refused = run("manifest", *words, check=False)
        assert refused.returncode == 125, words
        assert message in refused.stderr, refused.stderr


def test_damaged_index(store_place: Place) -> None:
    run = store_place.run
    index = run("manifest", "create", "mine", f"docker://{BUSYBOX}").stdout.strip()
    (store_place.root / "indexes" / f"{index}.json").write_text("")
    for words in (
        ("images",),
        ("manifest", "inspect", "mine"),
        ("rmi", "mine"),
        ("tag", "mine", "x"),
        ("pull", "mine"),
    ):
        run(*words, check=False)
    assert store_place.findings(expected=1) == ["index"]
    assert store_place.findings("--repair", expected=0) == ["index"]
    assert store_place.findings(expected=0) == []
    run("manifest", "create", "mine")
