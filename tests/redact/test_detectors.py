"""Hand-written cases for the built-in detectors: what they take, and what they leave alone."""

from __future__ import annotations

import random
import string

import pytest

from policies.redact import redact_text
from policies.redact.checks import base58check, bech32, card, entropy, iban, luhn, repetitive, richer
from policies.redact.groups import BY_NAME, GROUPS
from policies.redact.whole import find

RNG = random.Random(20261122)


def rnd(n: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    return "".join(RNG.choice(alphabet) for _ in range(n))


HEX = "0123456789abcdef"
LOW = string.ascii_lowercase + string.digits
UPPER = string.ascii_uppercase + string.digits
KEYS = {
    "openai_key": f"sk-proj-{rnd(20)}T3BlbkFJ{rnd(20)}",
    "anthropic_key": f"sk-ant-api03-{rnd(93)}AA",
    "google_key": f"AIza{rnd(35)}",
    "aws_access_key": f"AKIA{rnd(16, UPPER)}",
    "github_token": f"ghp_{rnd(36)}",
    "gitlab_token": f"glpat-{rnd(20)}",
    "slack_token": f"xoxb-{rnd(12, string.digits)}-{rnd(12, string.digits)}-{rnd(24)}",
    "stripe_key": f"sk_live_{rnd(24)}",
    "twilio_key": f"SK{rnd(32, HEX)}",
    "npm_token": f"npm_{rnd(36)}",
    "pypi_token": f"pypi-AgEIcHlwaS5vcmc{rnd(90)}",
    "huggingface_token": f"hf_{rnd(34)}",
    "sendgrid_key": f"SG.{rnd(22)}.{rnd(43)}",
    "mailgun_key": f"key-{rnd(32, HEX)}",
    "shopify_token": f"shpat_{rnd(32, HEX)}",
    "digitalocean_token": f"dop_v1_{rnd(64, HEX)}",
    "databricks_token": f"dapi{rnd(32, HEX)}",
    "postman_key": f"PMAK-{rnd(24, HEX)}-{rnd(34, HEX)}",
    "newrelic_key": f"NRAK-{rnd(27, UPPER)}",
    "grafana_token": f"glsa_{rnd(32)}_{rnd(8, HEX)}",
    "linear_key": f"lin_api_{rnd(40)}",
    "notion_token": f"ntn_{rnd(46)}",
    "vault_token": f"hvs.{rnd(90)}",
    "doppler_token": f"dp.pt.{rnd(43)}",
    "discord_webhook": f"https://discord.com/api/webhooks/{rnd(18, string.digits)}/{rnd(68)}",
    "groq_key": f"gsk_{rnd(52)}",
    "replicate_token": f"r8_{rnd(37)}",
    "docker_token": f"dckr_pat_{rnd(27)}",
    "airtable_token": f"pat{rnd(14)}.{rnd(64, HEX)}",
    "sentry_token": f"sntrys_{rnd(120)}",
    "openai_project_key": f"sk-proj-{rnd(48)}",
    "sk_key": f"sk-{rnd(48, string.ascii_lowercase)}",
    "cerebras_key": f"csk-{rnd(48, LOW)}",
    "voyage_key": f"pa-{rnd(43)}",
    "jina_key": f"jina_{rnd(60)}",
    "zhipu_key": f"{rnd(32, HEX)}.{rnd(16)}",
    "posthog_key": f"phx_{rnd(43)}",
    "launchdarkly_key": f"sdk-{rnd(8, HEX)}-{rnd(4, HEX)}-{rnd(4, HEX)}-{rnd(4, HEX)}-{rnd(12, HEX)}",
    "trello_token": f"ATTA{rnd(64, HEX)}{rnd(8, '0123456789ABCDEF')}",
    "okta_token": f"SSWS 00{rnd(40)}",
    "neon_key": f"napi_{rnd(64, LOW)}",
    "password_hash": f"$2b$12${rnd(53)}",
}
FRAMES = ["{}", "key: {}", '"{}"', "export KEY={}\n", "see {}, please", "({})", "<k>{}</k>", "a\n{}\nb", "é{}"]


@pytest.mark.parametrize("name", KEYS)
def test_a_services_key_is_found_in_every_frame(name: str) -> None:
    """A key is found by what it is, whatever stands around it."""
    for frame in FRAMES:
        text = frame.format(KEYS[name])
        assert KEYS[name].rpartition("/")[2] not in redact_text(text), text
    assert name in {found for found, _, _ in find(f"see {KEYS[name]} here")}


def test_there_are_fifty_services() -> None:
    """The keys of at least fifty services are told by format alone."""
    assert len([d for d in GROUPS["secrets"] if d.priority == 90]) > 100


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"api_key": "zx81-zx81"}', '{"api_key": "[API_KEY]"}'),
        ("DB_PASSWORD=hunter2 next", "[PASSWORD] next"),
        ("password: 'correct7 horse'", "password: '[PASSWORD]'"),
        ("my password is hunter22, ok", "my password is [PASSWORD], ok"),
        ("https://ann:s3cret@example.com/x", "https://[CREDENTIALS]@example.com/x"),
        ("Authorization: Basic YW5uOnMzY3JldA==", "Authorization: Basic [AUTH_TOKEN]"),
        ("run --api-key 8f14e45fceea167a now", "run --api-key [API_KEY] now"),
        ("see https://x.io/?token=ab12cd34&page=2", "see https://x.io/?[API_KEY]&page=2"),
        ("machine api.x.io login ann password s3cr3t", "machine api.x.io login ann password [PASSWORD]"),
        ("redis://:s3cret@cache:6379/0 up", "[DB_CONNECTION_STRING] up"),
        ("jdbc:mysql://db/x?user=a&password=b4c5 ", "[DB_CONNECTION_STRING] "),
        ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "[AWS_KEY]"),
        ("mail m.müller+x@bücher.example today", "mail [EMAIL] today"),
        ("Authorization: Basic YW5uOnMzY3JldA==.", "Authorization: Basic [AUTH_TOKEN]."),
        ("tel 415 555 0132, 01.23.45.67.89, 03-1234-5678, 0171/123 45 67", "tel [PHONE], [PHONE], [PHONE], [PHONE]"),
        ("card 4111-1111-1111-1111.", "card [CREDIT_CARD]."),
        ("IBAN DE89 3704 0044 0532 0130 00 ok", "IBAN [IBAN] ok"),
        ("call +44 20 7946 0018 or (415) 555-0132", "call [PHONE] or [PHONE]"),
        ("ssn 078051121 and 078-05-1123", "ssn [SSN] and [SSN]"),
        ("to 1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "to [CRYPTO_ADDRESS]"),
        ("from bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq", "from [CRYPTO_ADDRESS]"),
        ("host 10.1.2.3/16 via fe80::1%eth0 (00:1A:2B:3C:4D:5E)", "host [IP_ADDRESS] via [IP_ADDRESS] ([MAC_ADDRESS])"),
        ("on web-3.eu.internal and db_prod_01", "on [INTERNAL_REFERENCE] and [INTERNAL_REFERENCE]"),
        ("team_0123456789abcdef0123456789ABCDEF", "[TEAM_SECRET]"),
        # What people try first.
        ("my key is sk-proj-abcdefghijklmnopqrstuvwxyz012345", "my key is [API_KEY]"),
        ("sk-proj-abc123def456ghi789, sk-abcdefghijklmnopqrstuvwxyz123456", "[API_KEY], [API_KEY]"),
        ("My SSN is 123-45-6789", "My SSN is [SSN]"),
    ],
)
def test_what_is_masked(text: str, expected: str) -> None:
    """Names with values, connection strings, personal data, network names: what is replaced, and with what word."""
    assert redact_text(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "The token is a string. The secret: read the docs. A password must have 8 characters.",
        "token = get_token(user)  # api_key=self.api_key, password: str, secret: Optional[str] = None",
        "078051120",
        "sk-proj-your-key-goes-here",
        "sk-cube-grid1234567890abc",
        'api_key = os.environ["API_KEY"]; token: process.env.TOKEN; password = "${DB_PASSWORD}"',
        "api_key: <your-key>, token={{ token }}, secret=***, password=xxxxxxxx, key: changeme",
        "max_tokens: 4096, tokens=100, key: value, keyboard = qwerty123, monkey=banana",
        "git clone git@github.com:org/repo.git, icon@2x.png, @decorator",
        "commit 9fceb02d0ae598e95dc970b74767f19372d61af8, sha256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "id 123e4567-e89b-12d3-a456-426614174000, token_type: bearer, bearer of bad news",
        "on 2021-05-20 at 10:30, version 1.2.3, 12.345.678 people, 09:30-10:45, ISBN 978-3-16-148410-0",
        "order 4111111111111112, ratio 1:2:3:4, std::cout, items[::2], 1.2.3.4.5.6",
        "def encryption_key(self, secret: bytes) -> bool: return token == 0x22",
        "https://github.com/org/some-long-repository-name/issues/12345#issuecomment-1234567890",
        "public_key = 9Cnzj4p4WGeKLs1Pt8QuKUpRKfFLfRYC9AIKjbJTWit",
        "[API_KEY] [EMAIL_1] password=[PASSWORD_2]",
        "Chrome/120.0.0.0 Safari/537.36; 12:30:45 on 01.02.2024 04:05; 00:00:00",
        "sk-... or OPENAI_API_KEY=sk-..., api-gateway-service, class='sk-fading-circle sk-cube-grid'",
    ],
)
def test_what_is_left_alone(text: str) -> None:
    """Prose, code, placeholders, hashes, dates and versions are nobody's secret."""
    assert redact_text(text) == text


def test_masking_twice_changes_nothing() -> None:
    """What is masked holds nothing to mask."""
    for key in KEYS.values():
        once = redact_text(f'token="{key}" password=s3cret! to ann@example.com')
        assert redact_text(once) == once


def test_overlaps_are_settled_once() -> None:
    """The specific beats the general, the longer the shorter; nothing is replaced inside a replacement."""
    assert redact_text(f"GITHUB_TOKEN={KEYS['github_token']}") == "GITHUB_TOKEN=[API_KEY]"
    assert redact_text("postgres://ann:p4ss@10.0.0.1/db") == "[DB_CONNECTION_STRING]"
    assert redact_text("ann@web-1.eu.internal") == "[EMAIL]"


def test_checks() -> None:
    """Checksums are those of their standards."""
    assert luhn("4111111111111111") and not luhn("4111111111111112")
    assert card("371449635398431") and not card("0000000000000000") and not card("9999999999999995")
    assert iban("GB29NWBK60161331926819") and not iban("GB29NWBK60161331926818") and not iban("GB29NWBK6016133192681")
    assert base58check("3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy") and not base58check("3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLz")
    assert bech32("bc1p5d7rjq7g6rdk2yhzks9smlaqtedr4dekq08ge8ztwac72sfr9rusxg3297")
    assert entropy("aaaa") == 0 and entropy("abcd") == 2 and repetitive("abcd1234" * 4) and not repetitive(rnd(32))


def test_how_rich_a_text_is_can_be_told_without_its_entropy() -> None:
    """Most texts are judged by how many characters differ; the answer is the entropy's."""
    for size in (1, 2, 5, 16, 40, 96, 600):
        for alphabet in ("a", "ab", "abc", HEX, LOW, string.printable, "aaaaaaaab", "aaab" + HEX):
            text = rnd(size, alphabet)
            for bits in (0.0, 1.0, 2.0, 2.8, 3.2, 4.0, 4.2, entropy(text), entropy(text) - 1e-12):
                assert richer(text, bits) == (entropy(text) > bits), (text, bits)
    assert not richer("", 0.0)


def test_names_are_unique_and_words_known() -> None:
    """Detectors' names are metric labels; the words are the design document's where it has one."""
    assert len(BY_NAME) == sum(map(len, GROUPS.values()))
    words = {d.replacement for d in BY_NAME.values()}
    assert {"[API_KEY]", "[EMAIL]", "[IP_ADDRESS]", "[PASSWORD]", "[TEAM_SECRET]", "[DB_CONNECTION_STRING]", "[AWS_KEY]",
            "[INTERNAL_REFERENCE]", "[AUTH_TOKEN]", "[TEAM_ID]", "[SPRINT_REFERENCE]", "[USER_ID]"} <= words  # fmt: skip


@pytest.mark.parametrize("rest", ["12/26", "123", "2 of 3", "12/26 123", "07"])
def test_a_card_before_its_expiry_or_security_code(rest: str) -> None:
    """A number written in groups is found where a short number follows behind a blank."""
    assert redact_text(f"pay 4111 1111 1111 1111 {rest}") == f"pay [CREDIT_CARD] {rest}"
