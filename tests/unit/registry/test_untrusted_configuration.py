"""Whatever is in the files: an error that a user can read, or a configuration that can be asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from usercontainerd.base.errors import PullDenied, UsercontainerError
from usercontainerd.oci.reference import parse_reference
from usercontainerd.registry.authfiles import AuthFile, find_login
from usercontainerd.registry.configuration_files import merge_configurations

WORDS = st.sampled_from(
    ["a.io", "a.io/x", "a.io/x:1", "*.io", "*.a.io", "*.", "x", "", "/", "a.io/", "docker.io", "localhost:5000",
     "[::1]:5", "https://a.io", "a.io:1/y@z", "A.io/Y", "all", "digest-only", "enforcing", "ü", "a\n.io"]
)  # fmt: skip
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(WORDS, st.booleans(), st.integers(-1, 1), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(WORDS, inner, max_size=2)),
    max_leaves=4,
)
MIRROR_KEYS = ["location", "insecure", "pull-from-mirror"]
ENTRY_KEYS = ["prefix", "location", "insecure", "blocked", "mirror-by-digest-only"]


def tables(keys: list[str], **others: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    fields = {key: st.one_of(WORDS, st.booleans()) for key in keys} | others
    return st.lists(st.fixed_dictionaries({}, optional=fields), max_size=3)


DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "unqualified-search-registries": st.one_of(st.lists(WORDS, max_size=2), VALUES),
        "short-name-mode": st.one_of(WORDS, VALUES),
        "credential-helpers": st.one_of(st.lists(WORDS, max_size=2), VALUES),
        "registry": st.one_of(tables(ENTRY_KEYS, mirror=tables(MIRROR_KEYS)), VALUES),
        "aliases": st.one_of(st.dictionaries(WORDS, WORDS, max_size=2), VALUES),
        "registries": VALUES,
    },
)


@given(st.lists(DOCUMENTS, max_size=2))
def test_registries_conf(documents: list[dict[str, Any]]) -> None:
    try:
        configuration = merge_configurations(enumerate_files(documents))
    except UsercontainerError as error:
        assert (error.where or "").startswith("file")
        return
    for text in ("x", "a.io/x:1", "b.a.io/x", "docker.io/y", "localhost:5000/z"):
        reference = parse_reference(text)
        for candidate in (*configuration.candidates(reference), *configuration.local_candidates(reference)):
            assert not candidate.is_short
            try:
                endpoints = configuration.locate_all(candidate)
            except UsercontainerError as error:
                assert isinstance(error, PullDenied) or (error.where or "").startswith("file")
                continue
            assert endpoints
            assert not endpoints[-1].is_mirror
            assert all(
                parse_reference(str(endpoint.reference)) == endpoint.reference for endpoint in endpoints
            )


def enumerate_files(documents: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    return [(f"file{number}", document) for number, document in enumerate(documents)]


ENTRIES = st.fixed_dictionaries(
    {}, optional={"auth": st.sampled_from(["dTpw", "dQ==", "!", "", "/w=="]), "identitytoken": VALUES}
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        VALUES,
        st.fixed_dictionaries(
            {},
            optional={
                "auths": st.one_of(st.dictionaries(WORDS, st.one_of(ENTRIES, VALUES), max_size=3), VALUES),
                "credHelpers": st.one_of(st.dictionaries(WORDS, WORDS, max_size=2), VALUES),
                "credsStore": st.one_of(WORDS, VALUES),
            },
        ),
    ),
    st.booleans(),
)
def test_auth_files(tmp_path: Path, document: Any, legacy: bool) -> None:
    path = tmp_path / "auth.json"
    path.write_text(json.dumps(document))
    for key in ("a.io", "a.io/x", "docker.io/library/y"):
        try:
            login = find_login([AuthFile(str(path), legacy)], key, {})
        except UsercontainerError as error:
            assert error.where
        else:
            assert login is None or login.credentials.user or login.credentials.identity_token or document


@pytest.mark.parametrize("text", ["[" * 100_000, "\x00", '{"auths": ' + "[" * 5000])
def test_auth_files_of_other_kinds(tmp_path: Path, text: str) -> None:
    path = tmp_path / "auth.json"
    path.write_text(text)
    with pytest.raises(UsercontainerError):
        find_login([AuthFile(str(path))], "a.io", {})
