"""Secrets without anything between them, in links, and behind escaped slashes: all of them go, and nothing else."""

from __future__ import annotations

import json
from itertools import product

import pytest

from policies.redact.whole import redact_text
from tests.redact.helpers import cut, through
from tests.redact.test_kinds import HEX, rnd

KEYS = {
    "aws": "AKIA" + rnd(16, "ABCDEFGHJKLMNPQRSTUVWXYZ234567").upper(), "github": "ghp_" + rnd(36), "gitlab": "glpat-" + rnd(20),
    "openai": "sk-" + rnd(48), "project": f"sk-proj-{rnd(40)}", "anthropic": f"sk-ant-api03-{rnd(93)}AA", "deepseek": "sk-" + rnd(32, HEX),
    "google": "AIza" + rnd(35), "slack": f"xoxb-123456789012-{rnd(24)}", "stripe": f"sk_live_{rnd(24)}", "npm": "npm_" + rnd(36),
    "huggingface": "hf_" + rnd(34), "sendgrid": f"SG.{rnd(22)}.{rnd(43)}", "shopify": "shpat_" + rnd(32, HEX), "groq": "gsk_" + rnd(52),
}  # fmt: skip


@pytest.mark.parametrize(("one", "two"), list(product(KEYS, KEYS)))
def test_keys_stuck_together(one: str, two: str) -> None:
    """Nothing is left of keys that stand one upon the other, alike or not, two or three."""
    for text in (KEYS[one] + KEYS[two], KEYS[one] + KEYS[two] + KEYS[one]):
        out = redact_text(f"see {text}, please")
        assert out == "see [API_KEY], please"


def test_keys_stuck_together_in_a_stream() -> None:
    """However a stream is cut, the same is left of them."""
    text = f"see {KEYS['github']}{KEYS['aws']}{KEYS['google']} please"
    for at in range(len(text)):
        assert through([text[:at], text[at:]]) == "see [API_KEY] please"


@pytest.mark.parametrize(
    ("link", "left"),
    [
        ("https://x.com/a?mail=ann@b.co&x=1", "https://x.com/a?mail=[EMAIL]&x=1"),
        ("https://x.com:8080/a?to=ann@b.co", "https://x.com:8080/a?to=[EMAIL]"),
        ("https://x.com?x=1&mail=ann+new@b.co#top", "https://x.com?x=1&mail=[EMAIL]#top"),
        ("https://x.com/users/ann@b.co/edit", "https://x.com/users/[EMAIL]/edit"),
        ("https://ann:pw12@x.com/?mail=ann@b.co", "https://[CREDENTIALS]@x.com/?mail=[EMAIL]"),
        ("https://x.com/?next=https://ann:pw12@y.com/", "https://x.com/?next=https://[CREDENTIALS]@y.com/"),
        ("https://ann:pw/12@example.com/", "https://ann:[EMAIL]/"),
        ("bounce+ann=b.co@lists.example.org", "[EMAIL]"),
        ("https://x.com/a?mail=дмитрий@пример.рф&x", "https://x.com/a?mail=[EMAIL]&x"),
    ],
)
def test_a_link_keeps_all_but_the_address_in_it(link: str, left: str) -> None:
    """An address in a link's path or query is masked alone; a slash in a password or an address of a list is no link's."""
    assert redact_text(f"see {link} now") == f"see {left} now"
    for bits in (0x5555 << 20, 1 << 19, 1 << 25, (1 << 90) - 1):
        assert through(cut(f"see {link} now", bits)) == f"see {left} now"


SLASHED = {
    "postgres://ann:pw12345@db/app": "[DB_CONNECTION_STRING]",
    "https://ann:pw12@localhost/a": "https://[CREDENTIALS]@localhost/a",
    f"https://hooks.slack.com/services/T01ABCDEF/B01ABCDEF/{rnd(24)}": "https://[WEBHOOK_URL]",
    f"AccountKey={rnd(43)}/{rnd(42)}==": "AccountKey=[API_KEY]",
    "see https://x.com/a/b and s/a/b/": "see https://x.com/a/b and s/a/b/",
}


@pytest.mark.parametrize("text", SLASHED)
@pytest.mark.parametrize("depth", [1, 2])
def test_slashes_that_are_escaped(text: str, depth: int) -> None:
    """PHP's JSON escapes slashes: what holds one is found all the same, in JSON within JSON, too, and the rest stays as it was."""
    slash = "/"
    for _ in range(depth):
        slash = json.dumps(slash)[1:-1].replace("/", "\\/")
    given, left = (f'{{"dsn": "{part.replace("/", slash)}"}}, ' for part in (text, SLASHED[text]))
    assert redact_text(given) == left
    for at in range(len(given)):
        assert through([given[:at], given[at:]]) == left
    assert through(given) == left
