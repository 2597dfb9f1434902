"""Secrets behind line breaks, letters and colours that are written as escapes, where no JSON is read: in any text."""

from __future__ import annotations

import json

import pytest

from policies.redact.detector import Detector
from policies.redact.engine import Engine
from policies.redact.escapes import unescaped
from policies.redact.whole import redact_text
from tests.redact.helpers import call, chat, policy, through

SECRETS = {
    "AKIAIOSFODNN7EXAMPLE": "[AWS_KEY]",
    "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": "[API_KEY]",
    "ann@example.com": "[EMAIL]",
    "4111 1111 1111 1111": "[CREDIT_CARD]",
    "10.1.2.3": "[IP_ADDRESS]",
    "team_5f3c9e1b-8520-4c58-bc45-d3c97c9f34a2": "[TEAM_ID]",
    "postgresql://user:pa55word@db.internal:5432/mydb": "[DB_CONNECTION_STRING]",
    "password: hunter22x": "[PASSWORD]",
}
BEFORE = ("\n", "\t", "\r\n", "\x1b[31m", "\x1b[0;32m", "\x00", "<", "é ")


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_a_secret_behind_an_escape_is_found(secret: str, depth: int) -> None:
    """In a text that holds JSON, or JSON in JSON, a secret is found behind any escape, and the JSON stays what it was."""
    for before in BEFORE:
        text, wanted = (f"see:{before}{one}\nend" for one in (secret, SECRETS[secret]))
        for _ in range(depth):
            text, wanted = json.dumps({"output": text}), json.dumps({"output": wanted})
        assert redact_text(text) == wanted
        assert through([text]) == wanted


@pytest.mark.parametrize("secret", SECRETS)
def test_escapes_may_be_cut_anywhere(secret: str) -> None:
    """A stream that is cut within an escape gives what the whole text gives."""
    text = json.dumps({"output": "".join(f"{before}{secret}" for before in BEFORE) + "\\", "x": json.dumps("\né")})
    text += "\\" * 20 + f"n{secret}\\u00"
    whole = through([text])
    assert secret not in whole
    for i in range(1, len(text)):
        assert through([text[:i], text[i:]]) == whole, text[:i]
    for size in (1, 2, 3, 5, 7):
        assert through([text[i : i + size] for i in range(0, len(text), size)]) == whole


def test_a_long_stream_of_escapes() -> None:
    """What is cut off the buffer's beginning, in the midst of an escape, too, changes nothing."""
    text = (
        "".join(f"\\u001b[{i}mline {i} of \\x00{i % 7}\\t\\tand \\u00e9{i}\\n" for i in range(300))
        + "\\nann@example.com"
    )
    whole = through([text])
    assert whole.endswith("\\n[EMAIL]")
    for size in (1, 3, 7, 11, 64):
        assert through([text[i : i + size] for i in range(0, len(text), size)]) == whole


async def test_what_is_restored_is_the_secret_alone() -> None:
    """The letter of an escape before an address is no part of it: given back, it would name somebody else."""
    asked = call(chat('{"to":"hi\\nann@example.com","cc":"m\\u00fcller@example.com"}'))
    await policy(mode="restore").on_request(asked)
    assert asked.notes["redact"] == {"[EMAIL_1]": "ann@example.com", "[EMAIL_2]": "m\\u00fcller@example.com"}
    assert asked.request.body["messages"][0]["content"] == '{"to":"hi\\n[EMAIL_1]","cc":"[EMAIL_2]"}'


@pytest.mark.parametrize(
    "text", ["C:\\work\\app", "a \\d+ b", "\\u00", "\\x4", "\\u0041", '\\"', "\\\\", "\x1b(B", "\\e", "é"]
)
def test_what_is_no_such_escape_stays(text: str) -> None:
    """Paths, patterns and escapes of plain letters are looked at as they are."""
    assert unescaped(text.encode(), 0, True) == text.encode()


def test_offsets_stay() -> None:
    """Whatever stands in for an escape has as many bytes."""
    for code in [*range(0, 0x400, 3), 0x2028, 0x4E2D, 0xD83D, 0xFFFF]:
        for slashes in range(1, 10):
            text = b"a" + b"\\" * slashes + b"u%04xb\\nc" % code
            assert len(unescaped(text, 0, True)) == len(text)


def test_own_patterns_see_line_breaks_as_white_space() -> None:
    """A pattern of the house's own finds its word behind an escaped line break."""
    own = Engine([Detector("badge", r"\bEMP-\d{4}", group="own", replacement="[BADGE]")])
    assert through(list("id:\\nEMP-1234\\tEMP-5678"), own=own) == "id:\\n[BADGE]\\t[BADGE]"
