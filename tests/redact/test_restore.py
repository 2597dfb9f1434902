"""What restore mode has taken out comes back whole, wherever it stood; and nothing else does."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.redact import Redact
from policies.redact.lanes import PlainLane
from policies.redact.restore import Originals, Sight
from proxy.call import Call
from tests.redact.helpers import arguments, call, chat, cut, delta, engine, policy, said, word
from tests.redact.test_kinds import HEX, rnd

EVERYTHING = ("secrets", "pii", "network", "project")
VALUES = (
    lambda: "AKIA" + rnd(16, string.ascii_uppercase).upper(), lambda: "ghp_" + rnd(36), lambda: f"{rnd(5)}@{rnd(6)}.com", lambda: "10.1.2.3",
    lambda: "4111 1111 1111 1111", lambda: "+49 30 1234567", lambda: f"2001:db8::{rnd(4, HEX)}", lambda: "web-1.eu.internal",
    lambda: "team_" + rnd(32), lambda: "hunter2x9", lambda: "[EMAIL_1]", lambda: "[API_KEY]", lambda: 'wörld"s\\x', lambda: "db-prod-1",
)  # fmt: skip
#: Values within values, and beside each other.
FORMS = (
    "postgres://ann:{}@{}/app", "https://ann:{}@host/x", "password={}", '"api_key": "{}"', "token: {}", "Bearer {}", "my password is {}",
    "https://x.com/a?mail={}&k=1", "curl -u ann:{} {}", "mysql -u root -p{} -h {}", "Server={};Password={};User Id=sa", "--token {}",
    '{{"user": "{}", "secret": "{}"}}', "{}{}", "{},{}", "{}:{}", "{}@{}", "{}/{}", "server_id={}", "<password>{}</password>", "{} {}", "{}",
    "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----", "[{}]", "${{{}}}",
)  # fmt: skip


def drawn(rng: random.Random) -> str:
    """Return a text of values within values."""
    parts = []
    for _ in range(rng.randint(1, 3)):
        inner = [rng.choice(VALUES)() for _ in range(3)]
        for _ in range(rng.randint(1, 3)):
            inner[0] = rng.choice(FORMS).format(*inner)
        parts.append(inner[0])
    return rng.choice((" ", "\n", ", ", "", ";")).join(parts)


async def sent(text: str, **settings: object) -> tuple[Redact, Call, str]:
    """Return the policy, the call, and what the upstream gets of ``text``."""
    made, asked = policy(builtin=EVERYTHING, mode="restore", **settings), call(chat(text))
    await made.on_request(asked)
    masked: str = asked.request.body["messages"][0]["content"]
    return made, asked, masked


def content(made: Redact, asked: Call, pieces: Iterable[str]) -> str:
    """Return what the client reads of a stream's content."""
    chosen = made.on_reply(asked)
    out = [c for piece in pieces for c in chosen.feed(delta(content=piece))]
    return said([*out, *chosen.feed(delta(finish="stop")), *chosen.flush()])


def called(made: Redact, asked: Call, pieces: Iterable[str]) -> str:
    """Return what the client reads of a tool call's arguments."""
    chosen = made.on_reply(asked)
    out = [c for piece in pieces for c in chosen.feed(delta(tool_calls=arguments(piece)))]
    return said([*out, *chosen.feed(delta(finish="tool_calls")), *chosen.flush()], "arguments")


@pytest.mark.parametrize("seed", range(120))
async def test_what_was_taken_out_comes_back_whole(seed: int) -> None:
    """Said again word by word, in content or in tool arguments, a masked text is the caller's own again, however it was cut."""
    rng = random.Random(seed)
    for _ in range(4):
        text = drawn(rng)
        made, asked, masked = await sent(text)
        assert content(made, asked, cut(masked, rng.getrandbits(len(masked) + 1))) == text
        told = json.dumps({"q": masked, "n": 1}, ensure_ascii=rng.random() < 0.5)
        assert json.loads(called(made, asked, cut(told, rng.getrandbits(len(told) + 1)))) == {"q": text, "n": 1}


async def test_what_upstream_makes_of_placeholders_is_the_callers() -> None:
    """Where the upstream builds something of the caller's values, they are in it; where it adds a secret, all of it goes."""
    made, asked, masked = await sent("my password is hunter2x9, the host 10.1.2.3")
    assert masked == "my password is [PASSWORD_1], the host [IP_ADDRESS_1]"
    for built in (
        "postgres://ann:{}@{}/app",
        "https://ann:{}@{}/",
        'password = "{}"  # {}',
        "curl -u ann:{} http://{}/",
    ):
        assert content(made, asked, [built.format("[PASSWORD_1]", "[IP_ADDRESS_1]")]) == built.format(
            "hunter2x9", "10.1.2.3"
        )
    for built, left in (
        ("postgres://ann:zx81zx82@[IP_ADDRESS_1]/app", "[DB_CONNECTION_STRING]"),
        ("password=zx81zx82[PASSWORD_1]", "[PASSWORD]"),
        ("ghp_0aB1cD2eF3gH4iJ5kL6mN7oP8qR9sT0uV1wX[PASSWORD_1]", "[API_KEY]hunter2x9"),
        ("[PASSWORD_1]AKIAIOSFODNN7EXAMPLE [PASSWORD_2]", "hunter2x9[AWS_KEY] [PASSWORD_2]"),
    ):
        assert content(made, asked, [built]) == left
        assert content(made, asked, built) == left


async def test_what_is_only_counted_is_counted_once() -> None:
    """A text is looked at until nothing more is to be masked in it, and each finding is told once."""
    made, _, masked = await sent("ann@example.com token: 10.1.2.3 x", action={"default": "mask", "email": "count"})
    assert masked == "ann@example.com [API_KEY_1] x"
    assert sorted(made.kit.metrics.seen) == [("api_key", "request"), ("email", "request")]


PIECE = st.sampled_from(
    ["[", "]", "[EMAIL_1]", "[PASSWORD_1]", "[PASSWORD_2]", "[PASS", "WORD_1]", "_1", " ", "x", "é", "password=", "postgres://ann:", "@",
     "@host/a", "ann@example.com", "AKIAIOSFODNN7EXAMPLE", "zx81zx82", '"', "https:\\\\/\\\\/ann:", ":", "token: "]
)  # fmt: skip


@settings(deadline=None)
@given(parts=st.lists(PIECE, max_size=12), bits=st.integers(0, 2**60))
def test_a_stream_with_placeholders_is_as_the_whole(parts: list[str], bits: int) -> None:
    """However a text with placeholders in it is cut, the same is masked, and none of them in half."""
    text = "".join(parts)
    known = Originals({"[EMAIL_1]": "bob@example.org", "[PASSWORD_1]": "hunter2x9"})

    def through(pieces: Iterable[str]) -> str:
        lane = PlainLane(Sight(engine(), known), word)
        return "".join([*(lane.feed(piece) for piece in pieces), lane.feed("", True)])

    assert through(cut(text, bits)) == through([text])
