"""Tokens counted offline: the vocabulary is tiktoken's, bounds hold, estimates lean the right way."""

import gzip
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy import tokens
from proxy.request import ChatRequest


def request(text, **more):
    return ChatRequest({"model": "gpt-4o", "messages": [{"role": "user", "content": text}], **more})


def test_known_counts_and_no_network(monkeypatch):
    """The vendored vocabularies give tiktoken's published tokens without opening a socket."""

    def never(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", never)
    assert tokens.load("o200k_base").encode_ordinary("hello world") == [24912, 2375]
    assert tokens.load("cl100k_base").encode_ordinary("tiktoken is great!") == [83, 1609, 5963, 374, 2294, 0]


@pytest.mark.parametrize(
    ("model", "name"),
    [("gpt-4o", "o200k_base"), ("gpt-5.1", "o200k_base"), ("gpt-4", "cl100k_base"), ("openai/gpt-3.5-turbo", "cl100k_base"),
     ("claude-x", "o200k_base"), ("", "o200k_base")],
)  # fmt: skip
def test_each_model_has_its_vocabulary(model, name):
    """OpenAI's older models count with cl100k, everything else with o200k."""
    assert tokens.encoding_name(model) == name


def test_a_damaged_vocabulary_is_refused(monkeypatch, tmp_path):
    """A file that is not the one tiktoken pins counts nothing."""
    (tmp_path / "o200k_base.tiktoken.gz").write_bytes(gzip.compress(b"YQ== 0\n"))
    monkeypatch.setattr(tokens, "_VOCABULARY", tmp_path)
    with pytest.raises(tokens.VocabularyError, match="damaged"):
        tokens._ranks("x/o200k_base.tiktoken")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300))
def test_bytes_bound_tokens(text):
    """No text has more tokens than bytes: what a limit check without counting stands on."""
    exact = len(tokens.load("o200k_base").encode_ordinary(text))
    assert exact <= len(text.encode())
    assert tokens.bound(request(text)) >= exact


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("The quick brown fox jumps over the lazy dog. " * 40, 1.0, 1.5),
        ("Das Übermaß der Grüße " * 60, 1.0, 2.0),
        ("日本語のテキストです。" * 30, 1.0, 2.0),
        ("def f(x):\n    return x + 1\n" * 60, 0.6, 1.5),
        ('{"a": [1, 2.5, "x"], "b": null}' * 30, 0.4, 1.5),
    ],
)
def test_estimates_are_near(text, low, high):
    """The estimate without counting leans high on prose, low on text that is mostly punctuation, within these factors."""
    exact = len(tokens.load("o200k_base").encode_ordinary(text))
    assert low <= tokens.guess_text(text) / exact <= high


def test_attachments_cost_an_allowance():
    """An image, a file and a sound count although nobody can read their tokens here."""
    plain = tokens.estimate(request("x"))
    parts = [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}]
    assert tokens.estimate(request(parts)) - plain == pytest.approx(tokens.IMAGE, abs=3)
