"""Each kind of secret and of personal data beside what only looks like it; the values are drawn anew."""

from __future__ import annotations

import random
import string
from uuid import UUID

import pytest

from policies.redact.checks import luhn
from policies.redact.lanes import PlainLane
from policies.redact.whole import find, redact_text
from tests.redact.helpers import engine, word

RNG = random.Random(20261130)
ALNUM = string.ascii_letters + string.digits
HEX = "0123456789abcdef"


def rnd(n: int, alphabet: str = ALNUM) -> str:
    """Return a row that has a digit and a letter inside."""
    inner = "".join(RNG.choice(alphabet) for _ in range(n - 4))
    return RNG.choice("bcdef") + "7" + inner + "4" + RNG.choice("abc")


def uuid() -> str:
    return str(UUID(int=RNG.getrandbits(128), version=4))


def digits(n: int) -> str:
    return "".join(RNG.choice(string.digits) for _ in range(n))


def card(first: str, size: int) -> str:
    body = first + digits(size - len(first) - 1)
    return next(body + last for last in string.digits if luhn(body + last))


KEYS = {
    "adafruit_key": f"aio_{rnd(28)}",
    "apify_token": f"apify_api_{rnd(36)}",
    "appsync_key": f"da2-{rnd(26, HEX)}",
    "aws_session_token": f"IQoJb3JpZ2lu{rnd(300)}",
    "beamer_key": f"b_{rnd(44, string.ascii_lowercase + string.digits)}",
    "clearbit_key": f"sk_{rnd(32, HEX)}",
    "deepl_key": f"{uuid()}:fx",
    "docker_swarm": f"SWMTKN-1-{rnd(50, HEX)}-{rnd(25, HEX)}",
    "extended_key": f"xprv{rnd(107, 'abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789')}",
    "fcm_key": f"AAAA{rnd(7)}:APA91b{rnd(134)}",
    "gocardless_token": f"live_{rnd(40)}",
    "inngest_key": f"signkey-prod-{rnd(64, HEX)}",
    "kerberos_ticket": f"$krb5tgs$23${rnd(80, HEX)}",
    "netntlm_hash": f"ann::CORP:{rnd(16, HEX)}:{rnd(32, HEX)}:{rnd(80, HEX)}",
    "packagist_token": f"packagist_out_{rnd(68, HEX)}",
    "pagarme_key": f"ak_live_{rnd(30)}",
    "pubnub_key": f"sub-c-{uuid()}",
    "telnyx_key": f"KEY{'0' + rnd(31, '0123456789ABCDEF').upper()}_{rnd(22)}",
    "voiceflow_key": f"VF.DM.{rnd(24, HEX)}.{rnd(16)}",
    "wakatime_key": f"waka_{uuid()}",
    "zoho_token": f"1000.{rnd(32, HEX)}.{rnd(32, HEX)}",
}


@pytest.mark.parametrize("name", KEYS)
def test_a_key_with_a_format_is_found_alone_and_not_cut_short(name: str) -> None:
    """A format is enough; half of one is none."""
    key = KEYS[name]
    assert key not in redact_text(f"why does {key} fail?")
    assert name in {found for found, _, _ in find(f"why does {key} fail?")}
    cut = key[: min(len(key) // 2, 36)]
    assert name not in {found for found, _, _ in find(f"why does {cut} fail?")}


@pytest.mark.parametrize("form", ["ghp_{}", "sk_live_{}", "npm_{}", "hf_{}"])
def test_a_stand_in_for_a_key_stays(form: str) -> None:
    """Rows of x have a key's length, and are none."""
    text = f"use {form.format('x' * 36)} here"
    assert redact_text(text) == text


@pytest.mark.parametrize(
    "form",
    [
        "pipedrive {}", "mailjet: {}", "our sendbird -> {}", 'algolia = "{}"', "my stripe key is {}, thanks", "| deepgram | api key | {} |",
        'let zendeskToken: String = "{}"', 'pub const API_KEY: &str = "{}";', 'var apiToken string = "{}"', 'ENV ACME_API_KEY {}',
        "netlify env:set ACME_TOKEN {}", '<string name="acme_api_key">{}</string>', '<property name="apiKey" value="{}"/>',
        "<key>AcmeAPIKey</key>\n<string>{}</string>", "acme,api_key,{}", "(setq acme-token \"{}\")", "acme.api.key={}",
        "Authorization: {}", 'curl -u "{}:" https://api.example.com', "Here is my API key: {}. Can you help?",
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [24, 32])
def test_a_bare_row_is_told_by_what_stands_around_it(form: str, size: int) -> None:
    """A key without a format of its own is told by a service's name, a word for it, or the form it stands in."""
    key = rnd(size)
    assert key not in redact_text(form.format(key))


@pytest.mark.parametrize(
    "form",
    ["heroku_key: {}", "snyk {}", "X_TOKEN\n  value: \"{}\"", "?key={}&q=cats", "my api key for them is {}", "token: {}"],
)  # fmt: skip
def test_a_uuid_that_is_named_a_key(form: str) -> None:
    """What names a UUID a key makes it one."""
    value = uuid()
    assert value not in redact_text(form.format(value))


@pytest.mark.parametrize(
    "form",
    ["token for user {}", "datadog trace {}", "secret version id {}", "the heroku app id is {}", "cache_key={}", "request {} got a token"],
)  # fmt: skip
def test_a_uuid_that_numbers_something(form: str) -> None:
    """A UUID is a number until something names it a key."""
    text = form.format(uuid())
    assert redact_text(text) == text


@pytest.mark.parametrize(
    "form",
    ["github commit {}", "datadog_host: {}", "stripe customer cus_{}", "https://github.com/acme/{}", "auth0|{}", "sentry event id {}"],
)  # fmt: skip
def test_a_row_near_a_service_that_is_something_else(form: str) -> None:
    """Services number commits, customers and events, too."""
    text = form.format(rnd(24, HEX))
    assert redact_text(text) == text


@pytest.mark.parametrize(
    "text",
    [
        'token = "self._token"', "api_key: 'settings.API_KEY'", 'secret = "vault:secret/data/app#token"', "--api-key None",
        "<password>uuid4()</password>", '"apiKey": "Rails.application.secrets.token"', "Authorization: Bearer process.env.API_KEY",
        "password: required|string|min:8", "fetch(url, {credentials: 'same-origin'})", '"minipass": "^7.1.2"', "token: String!",
        "password = op://vault/item/field", "api_key: !Ref ApiKey", "ApiClient(api_key='test_api_key')",
        "from .oauth2 import OAuth2PasswordRequestFormStrict as Form", "camellia192_set_encrypt_key(ctx)", "curl -u $USER:$PASS x.io", "license plate B-MW 1234, VIN 1HGBH41JXMN109186",
        "xoxo-gossip-girl", "keys = self.local.token",
        "xmlSecKeyUseWithPtr xmlSecKeyUseWithDuplicate", "$A::b = 1",
        "glpat-your-token-goes-here", "ENV API_KEY $KEY", "set token abc", "primary key is user_2024_id_7",
        "Boston, MA 02110-1301 USA", "12-14-16 points", "Topic :: System :: Administration :: Logging",
        "the release is 20240102 now", "a MAC: 00:1A:2B:3C:4D", "hash 0a1b2c3d4e5f", "see 2401 1234 5678 9012",
    ],
)  # fmt: skip
def test_what_code_and_prose_write_stays(text: str) -> None:
    """Look-ups, references, types, releases and names in camel case are no values."""
    assert redact_text(text) == text


@pytest.mark.parametrize(
    ("form", "word"),
    [("a MAC {} here", "[MAC_ADDRESS]"), ("hwaddr={}", "[MAC_ADDRESS]")],
)
def test_hardware_addresses_without_colons(form: str, word: str) -> None:
    """Twelve digits behind the word, whole, in halves or in pairs."""
    row = rnd(12, HEX)
    pairs = " ".join(row[i : i + 2] for i in range(0, 12, 2))
    for written in (row, row.upper(), f"{row[:6]}-{row[6:]}", pairs):
        assert redact_text(form.format(written)) == form.format(word)


@pytest.mark.parametrize(
    "text",
    [
        "the zip file of this release was moved to another place and everybody who looked for it in the old one found a note",
        "with mysql it is easy to see how a table grows and where the indexes help and which of the statements take so long",
        "we set the token aside and then we set password rules that nobody reads because they are long and hard to follow",
        "password must have letters and signs and a length that nobody could guess within a week or two of trying it again",
        "docker login is needed first and then the mongo shell opens in a new window where you may type what you want to see",
        "the key is to read first, the name: value pairs come later, and my number is the same as it was before we moved",
        'Authorization is what "nothing" and "everything" need, and then a long sentence followed that had no end in sight',
    ],
)
def test_prose_about_secrets_does_not_wait(text: str) -> None:
    """Words that introduce secrets hold prose back for 64 characters at most."""
    lane, out = PlainLane(engine(), word), 0
    for i, char in enumerate(text, 1):
        out += len(lane.feed(char))
        assert i - out <= 64, text[:i]
    assert out + len(lane.feed("", True)) == len(text)


@pytest.mark.parametrize("first", ["2301", "2650", "3521", "6759", "5018"])
@pytest.mark.parametrize("mark", ["", " ", "-", ".", "  "])
def test_cards_of_all_issuers_in_groups(first: str, mark: str) -> None:
    """The check digit tells a card, however it is written."""
    number = card(first, 16)
    written = mark.join(number[i : i + 4] for i in range(0, 16, 4))
    assert redact_text(f"charge {written} today") == "charge [CREDIT_CARD] today"
    wrong = number[:-1] + str((int(number[-1]) + 1) % 10)
    written = mark.join(wrong[i : i + 4] for i in range(0, 16, 4))
    assert "[CREDIT_CARD]" not in redact_text(f"charge {written} today")


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("mob: 456 7965", "mob: [PHONE]"), ("call me at 90505221", "call me at [PHONE]"), ("tel (39) 376-941", "tel [PHONE]"),
        ("06-69960584 is free", "[PHONE] is free"), ("at (11) 97449-3219 now", "at [PHONE] now"),
        ("ring 453 38 862 today", "ring [PHONE] today"), ("M: 0171 123456 | E", "M: [PHONE] | E"), ("75 425 85 16 (mobile)", "[PHONE] (mobile)"),
        ("414 91 879 is my number", "[PHONE] is my number"), ("Is 446 46 419 still your number?", "Is [PHONE] still your number?"),
        ("call 415-555-0132: urgent", "call [PHONE]: urgent"), ("415-555-0132-Phone", "[PHONE]-Phone"), ("call (+358) 736293003", "call [PHONE]"),
        ("iban gb29nwbk60161331926819", "iban [IBAN]"), ("iban gb29nwbk60161331926818", "iban gb29nwbk60161331926818"),
        ("from 2001:db8::1: refused", "from [IP_ADDRESS]: refused"), ('to "ann.roe"@example.com', "to [EMAIL]"),
        ("ssn 078-051123", "ssn [SSN]"), ("psexec \\\\web1 -u ann -p tr0ub4dor cmd", "psexec \\\\web1 -u ann -p [PASSWORD] cmd"),
        ("openssl enc -pass pass:tr0ub4dor -in x", "openssl enc -pass pass:[PASSWORD] -in x"),
        ("to t1VpYecBW4UudbGcy4ufh61eWxQCoFaUrPs", "to [CRYPTO_ADDRESS]"),
    ],
)  # fmt: skip
def test_personal_data_in_other_notations(text: str, masked: str) -> None:
    """Numbers and addresses are told by their words, marks and checksums."""
    assert redact_text(text) == masked
