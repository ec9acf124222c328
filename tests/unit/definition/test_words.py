"""Words with a grammar."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from usercontainerd.base.errors import UsercontainerError
from usercontainerd.definition.words import find_image_fault
from usercontainerd.oci.reference import parse_reference

PARTS = (
    "a A a_b a__b a___b a-b a--b a.b a..b -a a- _a a_ a_.b a._b a-.b localhost localhost:5000 r.io r.io:5000 "
    "r.io:0 r.io:99999 r.io: [::1] [::1]:5000 [] [::g]:1 R.io -r.io r-.io 1 é sha256"
)
parts = st.sampled_from(PARTS.split())
tags = st.sampled_from(("", ":", ":v1", ":V_1.2-3", ":.v", ":-v", f":{'a' * 129}", ":5000/x", ":a:b"))
digests = st.sampled_from(
    (
        "",
        "@",
        f"@sha256:{'0' * 64}",
        f"@sha256:{'A' * 64}",
        f"@sha256:{'0' * 63}",
        f"@sha512:{'0' * 128}",
        f"@md5:{'0' * 32}",
        "@x@y",
    )
)
references = st.tuples(
    st.lists(parts | st.just(""), min_size=1, max_size=4).map("/".join), tags, digests
).map("".join)


@given(references | st.text("aA1/:@._-[]é ", min_size=1, max_size=12))
@example("a/" + "b" * 254)
@example("r.io/" + "b" * 256)
@example("a" * 250 + ".io/b")
@example("/".join("b" * 600))
def test_the_grammar_of_images_is_the_one_that_pull_has(text: str) -> None:
    try:
        parse_reference(text)
    except UsercontainerError:
        assert find_image_fault(text) is not None
    else:
        assert find_image_fault(text) is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("docker://nginx", "it has no scheme"),
        ("oci-archive:/x", "no name of a registry"),
        ("docker.io/Library/nginx", "the name must be in lower case"),
        ("Nginx", "the name must be in lower case"),
        ("nginx:", "what follows the last colon is no tag"),
        ("nginx:a b", "what follows the last colon is no tag"),
        ("a//b", "a part of the name is empty"),
        ("/a", "a part of the name is empty"),
        ("nginx@sha256:xyz", "what follows @ is no digest"),
        ("-x", '"-x" is no part of a name'),
        ("a/b?c", '"b?c" is no part of a name'),
        ("re%g.example/a", '"re%g.example" is no name of a registry'),
        ("a" * 256, "it is too long"),
    ],
)
def test_what_is_wrong_with_an_image(text: str, fault: str) -> None:
    assert fault in (find_image_fault(text) or "")


def test_an_image_may_be_named_by_its_id() -> None:
    assert find_image_fault("0123456789abcdef" * 4) is None
