"""Fifty files that somebody got wrong, and the messages that they get: one reviewed snapshot."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

import jsonschema
import pytest

from proxy.config.document import read
from proxy.config.load import ConfigError, load_text
from proxy.config.schema import schema

SNAPSHOT = Path(__file__).with_name("broken.md")
CASE = re.compile(r"## (\d+)\. (.*?)\n\n```yaml\n(.*?)```\n\n```text\n(.*?)```\n", re.DOTALL)
ENVIRON = {
    "OPENAI_API_KEY": "sk-0123456789",
    "OPS_KEY": "lsk_0123456789abcdef",
    "MAX_IN_FLIGHT": "100",
    "TWO_LINES": "sk-0123\nadmin: true",
}


class Case(NamedTuple):
    number: int
    title: str
    text: str
    messages: str


CASES = [Case(int(n), title, text, messages) for n, title, text, messages in CASE.findall(SNAPSHOT.read_text())]
#: Mistakes that a schema can see: a wrong key, type, word or form in one place. The others need the whole file.
SCHEMA_SEES = {
    "The list's dashes are missing", "The settings of a policy are not indented", "A section is mistyped",
    "Keys of sections are mistyped", "Keys of providers are mistyped", "Keys of policies are mistyped",
    "Keys of teams are mistyped", "Sections of a later version", "YAML 1.1 booleans",
    "Texts, numbers and lists are mixed up", "Numbers out of range", "Words that are none of the choices",
    "Providers of no known kind", "Weights", "A policy is mistyped", "A plugin that is not there", "Policy tests",
    "Prices", "Everything at once", "Aliases that lead nowhere",
}  # fmt: skip


def messages(text: str) -> str:
    """Return what is said about a file, one problem a line."""
    with pytest.raises(ConfigError) as caught:
        load_text(text, ENVIRON, str(SNAPSHOT.parent))
    return "".join(f"{problem}\n" for problem in caught.value.problems)


def test_the_messages_are_those_that_were_reviewed() -> None:
    """Each broken file gets exactly its messages: all mistakes, place, key, sentence and suggestion."""
    if os.environ.get("UPDATE_SNAPSHOT"):
        text = SNAPSHOT.read_text()
        for case in CASES:
            head = f"## {case.number}. {case.title}\n\n```yaml\n{case.text}```\n\n```text\n"
            text = text.replace(f"{head}{case.messages}```\n", f"{head}{messages(case.text)}```\n")
        SNAPSHOT.write_text(text)
        pytest.skip("the snapshot was written anew; review it")
    assert len(CASES) >= 50
    assert [case.number for case in CASES] == list(range(1, len(CASES) + 1))
    for case in CASES:
        assert messages(case.text) == case.messages, case.title


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_every_message_is_a_sentence_with_a_place(case: Case) -> None:
    """A file, a line, a short text without pydantic's vocabulary, and no secret in it."""
    for line in case.messages.splitlines():
        assert re.match(r"llm\.yml(:\d+)?: \S", line), line
        assert len(line) < 330, line
        assert not re.search(r"Input should|pydantic|_type\b|\bNone\b|Traceback|validation error", line), line
        assert "0123" not in line.replace("md5:0123", ""), line
        assert not line.endswith("."), line


def test_the_schema_sees_what_a_schema_can_see() -> None:
    """An editor with the schema underlines wrong keys, types and words; valid parts raise nothing."""
    validator = jsonschema.Draft202012Validator(schema())
    seen = set()
    for case in CASES:
        try:
            tree = read(case.text, "llm.yml").tree
        except ConfigError:
            continue
        if not validator.is_valid(tree):
            seen.add(case.title)
    assert seen >= SCHEMA_SEES, SCHEMA_SEES - seen
