"""The request's cache-control header."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.cache.wish import Wish, wish


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("", Wish()), ("no-cache", Wish(False, True)), ("no-store", Wish(False, False)), ("NO-STORE", Wish(False, False)),
        ("max-age=60", Wish(True, True, 60)), (" Max-Age = 60 , foo", Wish(True, True, 60)), ('max-age="5"', Wish(True, True, 5)),
        ("max-age=0", Wish(False, True, 0)), ("max-age=-1", Wish(False, True, 0)), ("max-age=abc", Wish(False, True, 0)),
        ("max-age", Wish(False, True, 0)), ("max-age=1e9", Wish(False, True, 0)), ("max-age=60, max-age=5", Wish(True, True, 5)),
        ("no-cache, no-store", Wish(False, False)), ("only-if-cached, private", Wish()), ("max-age=²", Wish(False, True, 0)),
        ("max-age=" + "9" * 400, Wish()), ("max-age=9999999999999999", Wish(True, True, 9999999999999999.0)), ("max-stale=9", Wish()),
    ],
)  # fmt: skip
def test_directives(header, wanted):
    """no-store: nothing of it; no-cache: a fresh answer; max-age=N: none older; what is no number is stale."""
    assert wish(header) == wanted


@given(st.text(max_size=60))
def test_any_header_means_something(header):
    """Whatever a client sends, there is a wish and no exception."""
    found = wish(header)
    assert found.read or found.read is False
    assert 0 <= found.max_age <= inf
