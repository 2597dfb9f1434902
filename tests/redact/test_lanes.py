"""However a text is cut, what comes out is the same: promise A4."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from policies.redact.detector import Detector
from policies.redact.engine import Engine
from policies.redact.lanes import PlainLane
from tests.redact.helpers import cut, engine, through, word

SHORT = [
    "api_key=abc12 me",
    "a@b.io 10.0.0.1!",
    "pw: hunter22\n x",
    "::1 sk-ab team_1",
    "é@ü.de 😀 a@b.co",
    "Bearer tok123 ab",
    "tel 0171 1234567",
    "http://u:p4@x.y/",
    '"token":"ab1c" z',
    "2001:db8::1/64 k",
]
LONG = [
    "my key AKIAIOSFODNN7EXAMPLE and 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, see you",
    "pay 4111 1111 1111 1111 or DE89 3704 0044 0532 0130 00 or call +1 (415) 555-0132 today",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAKCAQEA\n-----END RSA PRIVATE KEY-----\nthat was it",
    "postgresql://user:pass@db.internal:5432/mydb then mysql://a:b@c/d and server_id=prod-db-01.internal",
    "token = eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln and password: s3cret! and aws_secret_access_key=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "team_5f3c9e1b-8520-4c58-bc45-d3c97c9f34a2 in sprint_2025_q3_week12_team5 by user_id=auth0|12345",
    "fe80::1%eth0 00:1A:2B:3C:4D:5E 192.168.1.0/24 078-05-1123 0x52908400098527886E0F7030069857D2E4169EE7",
    "plain words only, nothing to see here, and the tokens of a sentence such as this one pass",
]


@pytest.mark.parametrize("text", SHORT)
def test_every_cut_of_a_short_text(text: str) -> None:
    """All 2^(n-1) cuttings of a short text give what the whole text gives."""
    text = text[:12]
    whole = through([text])
    for bits in range(1 << (len(text) - 1)):
        assert through(cut(text, bits)) == whole, cut(text, bits)


@pytest.mark.parametrize("text", LONG)
def test_every_single_and_double_cut_of_a_long_text(text: str) -> None:
    """Any two places of a secret may be where a stream was cut."""
    whole = through([text])
    assert (whole != text) == ("plain words" not in text)
    for i in range(1, len(text)):
        assert through([text[:i], text[i:]]) == whole, text[:i]
    for size in (1, 2, 3, 5, 8):
        assert through([text[i : i + size] for i in range(0, len(text), size)]) == whole


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_mixtures_cut_anywhere(data: st.DataObject) -> None:
    """Secrets, prose and noise run together and cut anywhere give what the whole gives."""
    noise = st.text(alphabet="ab12 .:=@/-_[]{}\"'\\\n\téя中😀+(", max_size=12)
    parts = data.draw(st.lists(st.one_of(st.sampled_from(SHORT + LONG), noise), min_size=1, max_size=5))
    text = "".join(parts)
    places = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=12)))
    pieces = [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
    assert through(pieces) == through([text])


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["password", "note", "é\n", 'k"']),
            st.sampled_from(SHORT + LONG + ['it"s\\ 1x', "\ud83d é"]),
        )
    ),
    st.booleans(),
    st.integers(0, 2**32),
)
@example([("password", 'it"s\\ 1x')], True, 1)
def test_arguments_cut_anywhere_stay_json(members: list[tuple[str, str]], ascii_only: bool, seed: int) -> None:
    """A tool's arguments, escapes cut in two included, come out the same, and as valid JSON."""
    text = json.dumps({f"{name}{i}": value for i, (name, value) in enumerate(members)}, ensure_ascii=ascii_only)
    if not ascii_only:
        text = text.encode("utf-8", "replace").decode()
    whole = through([text], json=True)
    after = json.loads(whole)
    assert list(after) == list(json.loads(text))
    rng = random.Random(seed)
    places = sorted(rng.randrange(len(text) + 1) for _ in range(rng.randrange(1, 20)))
    pieces = [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
    assert through(pieces, json=True) == whole
    assert through(list(text), json=True) == whole


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (r'{"to":"ann\u0040example.com"}', '{"to":"[EMAIL]"}'),
        (r'{"to":"m\u00fcller@example.com","n":1}', '{"to":"[EMAIL]","n":1}'),
        (r'{"x":"\ud83d\ude00 a@b.io \ud83d"}', r'{"x":"\ud83d\ude00 [EMAIL] \ud83d"}'),
        (r'{"password":"it\"s h1dden"}', '{"password":"[PASSWORD]"}'),
        (r'{"cfg":"{\"api_key\": \"zx81zx\"}"}', r'{"cfg":"{\"api_key\": \"[API_KEY]\"}"}'),
        ('{"password": "hunter22", "card": 4111111111111111}', '{"password": "[PASSWORD]", "card": 4111111111111111}'),
        ('  ["a@b.io",\n"x"]', '  ["[EMAIL]",\n"x"]'),
        ("not json a@b.io", "not json [EMAIL]"),
        (r'{"p":"C:\\dir\\a@b.io"}', r'{"p":"C:\\dir\\[EMAIL]"}'),
        ('{"broken":"a@b.io', '{"broken":"[EMAIL]'),
        (r'{"cut":"a@b.io \u00', r'{"cut":"[EMAIL] \u00'),
        ("", ""),
        ("   ", "   "),
    ],
)
def test_arguments(raw: str, expected: str) -> None:
    """Only what stands inside strings changes, escapes are seen through, and the rest stays byte for byte."""
    assert through([raw], json=True) == expected
    for bits in (0x5555555555, 0x9249249249, -1):
        assert through(cut(raw, bits), json=True) == expected


@pytest.mark.parametrize(
    "text", ["\ufeff文@t.YC", "联系：王@例子.公司 了", "“üwe@x.de”", "😀ü@b.io", "é×ü@b.io z", "ก—ข@x.de a"]
)
def test_a_word_begins_behind_any_sign(text: str) -> None:
    """A name in letters beyond ASCII that follows a sign beyond ASCII is found wherever the stream is cut."""
    whole = through([text])
    assert "[EMAIL]" in whole
    assert all(through([text[:i], text[i:]]) == whole for i in range(len(text))) and through(list(text)) == whole


def test_prose_waits_at_most_64_characters() -> None:
    """Plain prose is never held back by more than a word or two."""
    prose = (
        "The service answers when a customer asks for help, and the secret of a good answer is that it names what to do "
        "next. Key points: read the access rules, keep the token budget in mind; pass on what matters (in 3 steps, by "
        "2027) and don't repeat the password policy. Reach us at the office. It costs 4.50 a month - or 12 for three! "
    ) * 4
    lane, seen, worst = PlainLane(engine(("secrets", "pii")), word), 0, 0
    for i, char in enumerate(prose):
        seen += len(lane.feed(char))
        worst = max(worst, i + 1 - seen)
    assert worst <= 64, worst


@pytest.mark.parametrize(
    "sentence",
    ["บริการจะตอบเมื่อลูกค้าขอความช่วยเหลือและเคล็ดลับของคำตอบที่ดีคือการบอกว่าจะต้องทำอะไรต่อไป", "服务在客户寻求帮助时作出回答而好答案的秘诀在于说明下一步该做什么", "サービスはお客様が助けを求めたときに応答します"],
)  # fmt: skip
def test_scripts_without_blanks_wait_as_prose_does(sentence: str) -> None:
    """Words as long as sentences wait for 64 characters at most, and an address at their end is found all the same."""
    lane, seen, worst = PlainLane(engine(("secrets", "pii")), word), 0, 0
    prose = sentence * 20
    for i, char in enumerate(prose):
        seen += len(lane.feed(char))
        worst = max(worst, i + 1 - seen)
    assert worst <= 64, worst
    for n in (1, 2, 5, 20, 60):
        text = f"{sentence * n}ann@example.com "
        whole = through([text])
        assert whole.endswith("[EMAIL] ") and "example" not in whole
        assert through(list(text)) == through([text[i : i + 5] for i in range(0, len(text), 5)]) == whole


def test_a_character_goes_out_as_soon_as_nothing_can_include_it() -> None:
    """What was held back goes on at once when the next character rules every match out."""
    lane = PlainLane(engine(("secrets", "pii")), word)
    assert lane.feed("hello") == ""
    assert lane.feed(" ") in ("hello", "hello ")
    assert lane.feed("(") in ("", " ", " (", "(")


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="abx1 -é", min_size=1, max_size=40), st.integers(0, 2**40))
def test_own_patterns_without_word_boundaries(text: str, bits: int) -> None:
    """Patterns that begin anywhere, overlap, have no bound, or hold white space are decided the same in a stream."""
    own = [
        Detector("any", "b[ax]+1", group="own", replacement="<1>", priority=3, cap=8),
        Detector("space", r"\s1 ?", group="own", replacement="<2>", priority=5),
        Detector("overlap", "x1[a-z]{2,5}", group="own", replacement="<3>", priority=4),
        Detector("wide", "é.{0,6}é", group="own", replacement="<4>", priority=1),
        Detector("end", "a-$", group="own", replacement="<5>", priority=2),
        Detector("plain words", "ab ab", group="own", replacement="<6>", priority=9),
    ]
    made = Engine(own)
    assert through(cut(text, bits), own=made) == through([text], own=made)


def test_a_finding_across_members_leaves_the_structure() -> None:
    """A pattern that reaches over JSON's own signs changes strings only: quotes, commas and brackets stay."""
    own = Engine([Detector("reach", "a.{0,12}b", group="own", replacement="<X>")])
    for raw, expected in {'["xa","by"]': '["x<X>","y"]', '{"k":"a1",\n"b":2}': '{"k":"a1",\n"b":2}'}.items():
        whole = through([raw], json=True, own=own)
        assert whole == expected
        assert through(list(raw), json=True, own=own) == whole


def test_what_was_turned_down_is_not_looked_into() -> None:
    """A stream cut inside a candidate that was turned down finds in it what the whole finds: nothing."""
    own = Engine(
        [
            Detector("word", r"\b[a-z-]{5,20}", group="own", replacement="<W>", check=lambda hit: hit.value[0] != "x"),
            Detector("long", r"\bdef.{0,30}END", group="own", replacement="<L>"),
        ]
    )
    for text in ("xabc-defgh zz, and on it goes for a while", "xabc-defgh zz END"):
        whole = through([text], own=own)
        for size in (1, 2, 5, 11):
            assert through([text[i : i + size] for i in range(0, len(text), size)], own=own) == whole
    assert "defgh" in through(["xabc-defgh zz"], own=own)


@pytest.mark.parametrize(
    "text", ["4222222222222-password: null", "10.1.2.3.4 or 4111111111111111.5x", "078-05-1123.5 but 219-09-9999.x"]
)
def test_a_check_sees_the_same_two_bytes_behind_its_match(text: str) -> None:
    """A stream cut right behind a candidate finds what the whole finds."""
    assert through(list(text)) == through([text])
    for i in range(1, len(text)):
        assert through([text[:i], text[i:]]) == through([text]), text[:i]


def test_an_escape_behind_what_looks_like_one_may_be_cut() -> None:
    """An escaped backslash before `ud83d` is no surrogate; the escape behind it is still kept whole."""
    text = r'{"a": "C:\\ud83d\" x", "b": "\\\\ud83d\\", "p": "key AKIAIOSFODNN7EXAMPLE z"}'
    whole = through([text], json=True)
    assert json.loads(whole)["p"] == "key [AWS_KEY] z"
    for i in range(1, len(text)):
        assert through([text[:i], text[i:]], json=True) == whole, text[:i]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{'key': 'AKIAIOSFODNN7EXAMPLE'}", "{'key': '[AWS_KEY]'}"),
        ("{ann: ann@example.com, 1}", "{ann: [EMAIL], 1}"),
        ('{"a": "x"y", "b": "ann@example.com"}', '{"a": "x"y", "b": "[EMAIL]"}'),
        (r"{'a': 'to\nann@example.com'}", r"{'a': 'to\n[EMAIL]'}"),
        ("[4111111111111111, true, -1.5e3, null]", "[4111111111111111, true, -1.5e3, null]"),
    ],
)
def test_what_only_begins_like_json_is_masked_everywhere(text: str, wanted: str) -> None:
    """Arguments that turn out to be no JSON hide nothing outside of strings; in JSON numbers stay numbers."""
    for i in range(len(text)):
        assert through([text[:i], text[i:]], json=True) == wanted, text[:i]
