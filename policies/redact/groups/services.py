"""The detectors of services' keys: the formats, and what else makes a candidate one."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Final

from policies.redact.checks import base58check, classes, json_segment, repetitive, spotter
from policies.redact.detector import CAP, DEAR, MEDIUM, WEIGHT, Check, Detector, Hit, Verdict
from policies.redact.gates import NAME, WORD
from policies.redact.groups.formats import TABLE
from policies.redact.syntax import parse
from policies.redact.values import random_token


def _jwt(hit: Hit) -> Verdict:
    header, payload = hit.value.split(".")[:2]
    return json_segment(header) and json_segment(payload)


def _digit(hit: Hit) -> Verdict:
    lower, upper, digits, _ = classes(hit.value)
    return digits > 0 or (lower > 0 and upper > 0)


def _mixed(hit: Hit) -> Verdict:
    lower, upper, digits, _ = classes(hit.value)
    return digits > 1 and lower > 1 and upper > 1


def _azure_service(hit: Hit) -> Verdict:
    """Turn down what is the midst of a longer row in base 64: a picture has such marks by chance."""
    return (
        _mixed(hit) is True
        and hit.before[-1:] not in (b"/", b"+")
        and not (hit.after.isalnum() or hit.after in (b"/", b"+"))
    )


def _base64_secret(hit: Hit) -> Verdict:
    """Confirm a key or an address with a password in it as Kubernetes keeps them: all of it in base 64."""
    value = hit.value.rstrip("=")
    if len(value) % 4 == 1 or hit.after.isalnum() or hit.after in (b"+", b"/"):
        return False
    meant = base64.b64decode(value + "=" * (-len(value) % 4))
    return bool(_MEANT(meant))


_MEANT: Final = spotter(
    r"^(?:A[KS]IA[A-Z0-9]{16}|[a-z0-9+]{4,24}://[^\s/@]*:[^\s@]+@.*|https://hooks\.slack\.com/services/.*)\s*$"
)


def _no_word_after(hit: Hit) -> Verdict:
    after = hit.after
    return not (after.isalnum() or after == b"_")


_GITLAB_LENGTHS: Final[dict[str, Sequence[int]]] = {"glimt": (25,), "glptt": (40,), "gloas": (64,), "glpat": range(20, 51), "gldt": range(20, 51),
                          "glft": range(20, 51), "glsoat": range(20, 51), "glrt": range(20, 51), "glcbt": range(20, 24),
                          "glagent": range(50, 1025)}  # fmt: skip


def _gitlab(hit: Hit) -> Verdict:
    value = hit.value
    prefix, _, rest = value.replace("=", "-").partition("-")
    if value.startswith("GR1348941"):
        rest, prefix = value[9:], "glrt"
    lengths = _GITLAB_LENGTHS.get(prefix, range(20, 131))
    routable = "." in rest
    words = rest.replace("-", "").replace("_", "").isalpha() and rest.islower()
    return (routable or len(rest) in lengths) and len(set(rest)) > 3 and not words and _no_word_after(hit) is True


def _jfrog(hit: Hit) -> Verdict:
    value = hit.value
    lower, upper, digits, _ = classes(value)
    return lower > 0 and upper > 0 if value.startswith("AP") and digits < 2 else digits > 0 or lower > 0


def _kubeadm(hit: Hit) -> Verdict:
    return b"token" in hit.before[-40:].lower() and classes(hit.value)[2] > 2


def _either_group(hit: Hit) -> Verdict:
    for span in hit.spans[1:]:
        if span[0] >= 0:
            return span
    return True


def _curl_user(hit: Hit) -> Verdict:
    """Turn down a variable: ``curl -u $USER:$PASS``."""
    return False if hit.group(1).partition(":")[2][:1] in ("$", "<", "{") else hit.spans[1]


def _vault(hit: Hit) -> Verdict:
    value = hit.value
    return value[0] == "h" or min(classes(value[2:])[:3]) > 0


def _sk(hit: Hit) -> Verdict:
    """Take a bare row that varies, and what has marks in it, as names have, only if it looks drawn by chance."""
    value = hit.value[3:]
    if value.isalnum():
        mixed = len(value) >= 40 or not (value.isalpha() or value.isdecimal())
        return mixed and not repetitive(value) and _no_word_after(hit)
    return hit.after != b"-" and _no_word_after(hit) is True and _mixed(hit) is True and random_token(value)


def _random(hit: Hit) -> Verdict:
    return random_token(hit.value)


def _varied(hit: Hit) -> Verdict:
    """Turn down what only stands in for a key: ``ghp_xxxxxxxx…``."""
    return not repetitive(hit.value[:96])


#: What stands in for a key in examples.
_STAND_IN: Final = spotter(r"(?i)x{8}|0{12}|[*]{4}|your[_-]|placeholder|insert[_-]|[_-]here\b|goes[_-]here")


def _real(hit: Hit) -> Verdict:
    """Confirm whatever has a key's format, or its group that does, unless it only stands in for one."""
    low, high = next((span for span in hit.spans[1:] if span[0] >= 0), hit.secret)
    return not _STAND_IN(hit.text[low : min(high, low + 128)]) and (low, high)


def _slack(hit: Hit) -> Verdict:
    return bool(classes(hit.value)[2]) and _real(hit)


def _base58_key(hit: Hit) -> Verdict:
    value = hit.value
    return base58check(value, size=33 if value[0] == "5" else 34)


def _project(hit: Hit) -> Verdict:
    """Turn down what only stands in for a key, and a short one with OpenAI's mark misspelt: an example of what is none."""
    value = hit.value
    if len(value) < 64 and (("BlbkFJ" in value and "T3BlbkFJ" not in value) or not classes(value)[2]):
        return False
    return _varied(hit) and _real(hit) is not False


def _storage(hit: Hit) -> Verdict:
    """Turn down a SHA-512 in base 64 (subresource integrity): 86 characters and ``==``, too."""
    before = hit.before[-1:]
    if re.search(rb"(?i)(?:sha-?512|h1)[-:= \"']{1,3}$", hit.before) or (
        before and (before.isalnum() or before in b"+/")
    ):
        return False
    return not repetitive(hit.value)


_CHECKS: Final[dict[str, Check]] = {
    "github_token": _varied,
    "bitcoin_key": _base58_key,
    "slack_token": _slack,
    "fauna_key": _random,
    "gocardless_token": _random,
    "beamer_key": _random,
    "sanity_token": _random,
    "segment_token": _digit,
    "pagarme_key": _digit,
    "openai_project_key": _project,
    "azure_storage_key": _storage,
    "jwt": _jwt,
    "gitlab_token": _gitlab,
    "jfrog_key": _jfrog,
    "kubeadm_token": _kubeadm,
    "softlayer_key": _either_group,
    "ibm_cloud_key": _either_group,
    "ibm_cos_key": _either_group,
    "cloudant_key": _either_group,
    "npmrc_token": _either_group,
    "netrc_password": _either_group,
    "curl_user": _curl_user,
    "octopus_key": _digit,
    "telegram_token": _either_group,
    "vault_token": _vault,
    "sk_key": _sk,
    "voyage_key": _random,
    "zhipu_key": _varied,
    "okta_token": _either_group,
    "node_provider_key": _either_group,
    "weather_key": _either_group,
    "unkey_key": _digit,
    "render_key": _digit,
    "posthog_key": _digit,
    "airtable_token": _digit,
    "azure_ad_secret": _digit,
    "azure_service_key": _azure_service,
    "base64_secret": _base64_secret,
    "facebook_token": _digit,
    "fireworks_key": _digit,
    "notion_token": _digit,
    "checkout_key": _digit,
    "dropbox_token": _digit,
    "alibaba_key": _digit,
    "crates_token": _digit,
    "google_key": _digit,
    "google_oauth": _digit,
}
#: Formats that are masked whatever fills them, examples included: nothing harmless is written like them.
_UNCHECKED: Final = ("aws_access_key", "twilio_key", "slack_webhook")
#: Where the derived prefilter would be found too often.
_HINTS: Final = {
    "azure_storage_key": r"[A-Za-z0-9+/]==",
    "azure_service_key": r"AzSe|ACDb|AzFu|APIM|ACR|AIoT|ASbE|AEhS",
    "azure_ad_secret": r"\dQ~",
    "mailchimp_key": r"[0-9a-f]-us\d",
    "mailgun_key": r"\bkey-[0-9a-z]|pubkey-|[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]",
    "telegram_token": r"\d:A|telegram",
    "discord_token": r"\.[\w-]{6}\.[\w-]{8}",
    "facebook_token": r"\bEAA[A-Z]|\d\|[\w-]{12}",
    "newrelic_key": r"\bNR(?:AK|RA|BR|AA|JS|SP|II)-|NRAL",
    "zhipu_key": r"[0-9a-f]{8}\.\w",
    "weather_key": "appid=",
    "node_provider_key": r"alchemy|infura|quiknode",
    "dropbox_token": r"\bsl\.[\w-]{12}|AAAAAAAAAA",
    "teams_webhook": r"webhook\.office",
    "google_client_id": r"googleusercontent",
    "ibm_cloud_key": r"(?i)(?:key|pwd|pass|token|password)[\"']?[ \t]*[:=]+[ \t]*[\"']?[\w-]{8}",
    "ibm_cos_key": r"(?i)(?:access|key)[\w.-]*[\"'\]]*[ \t]*[:=]+[ \t]*[\"']?[0-9a-f]{8}",
    "webex_token": r"_[A-Z0-9]{4}_[0-9a-fA-F]{8}-",
    "kubeadm_token": r"[a-z0-9]\.[a-z0-9]{16}",
    "softlayer_key": r"(?i)softlayer|\bsl[_-]{0,2}(?:api|key|pwd|pass|token)",
    "netntlm_hash": r"::[\w.-]*:[0-9a-f]{8}",
    "npmrc_token": "_authToken",
    "cloudant_key": r"(?i)clou|\bcl[\w-]{0,12}(?:key|pw|pass|token)",
}
_GATES: Final = {"ibm_cloud_key": WORD, "ibm_cos_key": WORD, "cloudant_key": NAME}
#: What every match of a pattern holds that can begin long before it.
_CORES: Final = {
    "openai_key": "T3BlbkFJ",
    "azure_service_key": _HINTS["azure_service_key"],
    "jwt": r"\.eyJ",
    "mapbox_token": r"\.",
    "bitbucket_token": "ATBB|=",
    "npmrc_token": "_authToken",
    "curl_user": r" (?:-u|--user)",
    "snyk_token": "snyk_",
}
_WORDS: Final = {
    "aws_access_key": "[AWS_KEY]",
    "aws_session_token": "[AWS_KEY]",
    "aws_mws_key": "[AWS_KEY]",
    "aws_bedrock_key": "[AWS_KEY]",
    "jwt": "[AUTH_TOKEN]",
    "jwt_base64": "[AUTH_TOKEN]",
    "base64_secret": "[CREDENTIALS]",
    "ldap_hash": "[PASSWORD]",
    "password_hash": "[PASSWORD]",
    "bitcoin_key": "[PRIVATE_KEY]",
    "extended_key": "[PRIVATE_KEY]",
    "netntlm_hash": "[PASSWORD]",
    "kerberos_ticket": "[PASSWORD]",
    "jenkins_password": "[PASSWORD]",
    "netrc_password": "[PASSWORD]",
    "curl_user": "[CREDENTIALS]",
    "slack_webhook": "[WEBHOOK_URL]",
    "discord_webhook": "[WEBHOOK_URL]",
    "teams_webhook": "[WEBHOOK_URL]",
}

_WEIGHTS: Final = {
    "jwt": DEAR,
    "fauna_key": DEAR,
    "gocardless_token": DEAR,
    "beamer_key": DEAR,
    "sanity_token": DEAR,
    "bitcoin_key": 2 * DEAR,
    "azure_storage_key": 96,
    "azure_service_key": DEAR,
    "sk_key": DEAR,
    "gitlab_token": MEDIUM,
    "kubeadm_token": MEDIUM,
}
#: Counters up to here stay in a pattern. Longer ones make automata that hostile text blows up, and so become
#: runs without an end; the longest match is kept by the detector's `cap`.
_COUNT: Final = 64


def _uncounted(pattern: str) -> str:
    """Return ``pattern`` without its long counters: ``{20,200}`` becomes ``{20,}``."""

    def without(match: re.Match[str]) -> str:
        low, high = int(match[1]), int(match[2])
        return match[0] if high <= _COUNT else f"{{{low},}}"

    return re.sub(r"\{(\d+),(\d+)\}", without, pattern)


DETECTORS: Final = tuple(
    Detector(name, _uncounted(pattern), group="secrets", replacement=_WORDS.get(name, "[API_KEY]"), priority=90,
             check=_CHECKS.get(name, None if name in _UNCHECKED else _real), hint=_HINTS.get(name, ""), gate=_GATES.get(name, ""), core=_CORES.get(name, ""),
             cap=min(CAP, parse(pattern).size), weight=_WEIGHTS.get(name, WEIGHT))
    for name, pattern in TABLE
)  # fmt: skip
