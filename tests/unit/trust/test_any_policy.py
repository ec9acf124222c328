"""Policies of any shape: read or refused, and none that asks for a signature lets an unsigned image in."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from usercontainerd.base.errors import InvalidFormat, PullDenied
from usercontainerd.oci.reference import parse_reference
from usercontainerd.trust.evaluation import Evaluation, Tools
from usercontainerd.trust.policy import AcceptAnything, parse_policy
from usercontainerd.trust.scopes import identify_in_registry

IMAGE = identify_in_registry(parse_reference("a.example/b:1"))
KEYS = ("type", "keyType", "keyPath", "keyPaths", "keyData", "keyDatas", "signedIdentity", "fulcio", "pki")
WORDS = (
    *("insecureAcceptAnything", "reject", "signedBy", "sigstoreSigned", "signedBaseLayer", "GPGKeys"),
    *("matchExact", "matchRepository", "exactReference", "remapIdentity", "a.example/b", "a2V5", ""),
)
SCOPES = ("", "a.example", "a.example/b", "a.example/b:1", "*.example", "other.example")
leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.sampled_from(WORDS))
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=8,
)
requirements = st.one_of(
    st.just({"type": "insecureAcceptAnything"}),
    st.just({"type": "reject"}),
    st.just({"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/nonexistent"}),
    st.just({"type": "sigstoreSigned", "keyPath": "/nonexistent"}),
    st.just({"type": "sigstoreSigned", "keyPath": "/nonexistent", "rekorPublicKeyPath": "/nonexistent"}),
    st.dictionaries(st.sampled_from(KEYS), values, max_size=4),
)
lists = st.lists(requirements, max_size=3)
policies = st.fixed_dictionaries(
    {"default": lists},
    optional={
        "transports": st.dictionaries(
            st.sampled_from(("docker", "dir", "new")),
            st.dictionaries(st.sampled_from(SCOPES), lists, max_size=4),
        )
    },
)


@given(policies)
def test_only_accept_anything_accepts_an_unsigned_image(document: Any) -> None:
    try:
        policy = parse_policy(json.dumps(document).encode(), "policy.json")
    except InvalidFormat:
        return
    wanted = policy.find_requirements(IMAGE)
    assert wanted
    try:
        Evaluation(policy, IMAGE, b"{}", lambda: (), Tools("/nonexistent")).run()
    except PullDenied:
        assert not all(isinstance(each, AcceptAnything) for each in wanted)
    else:
        assert all(isinstance(each, AcceptAnything) for each in wanted)


@given(values)
def test_any_json_is_read_or_refused(document: Any) -> None:
    try:
        parse_policy(json.dumps(document).encode(), "policy.json")
    except InvalidFormat:
        pass


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        parse_policy(data, "policy.json")
    except InvalidFormat:
        pass
