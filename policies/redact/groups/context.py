"""Rows of characters drawn by chance, told by what stands shortly before them: a word for a key, a service's name."""

from __future__ import annotations

import re
from typing import Final

from policies.redact.checks import spotter
from policies.redact.detector import MEDIUM, Detector, Hit, Verdict
from policies.redact.groups.names import NAMES
from policies.redact.runs import LONG_RUN
from policies.redact.values import UUID, random_token

_WORDS: Final = (
    r"(?i)api|key|token|secret|passw(?:or)?d|passphrase|pwd|\bpw|credential|creds|auth|bearer|license|webhook|hmac|signing"
    r"|\bsid\b|access"
)
_SERVICES: Final = "|".join(NAMES)
_WORD_AROUND: Final = spotter(_WORDS)
#: A service's name in any spelling and with more after it: ``MAILGUN_KEY``, ``acme-mailgun``.
_SERVICE_AROUND: Final = spotter(rf"(?i)(?:\b|_|-)(?:{_SERVICES})")
#: Words with a key in them that has no lock.
_INNOCENT: Final = re.compile(
    rb"(?i)key(?:board|word|ring|stone|note|frame|chain|point)|tokeniz|author|monkey|accessib|rapid|licen[cs]e (?:plate|number)"
)
_NOT_AROUND: Final = spotter(
    r"(?i)sha-?\d|md5|digest|checksum|integrity|commit|revision|fingerprint|etag|hash|uuid|guid|public|pub[_-]?key|thumbprint"
    r"|aws[\w.-]{0,24}key[\"'\]]{0,2}[ \t]{0,3}[:=][ \t]{0,3}[\"'`]?$|blob|tree |parent|image:|trace|span|request.?id"
    r"|_authToken=$|[_-]?(?:id|name|url|uri|path|file|type|version|usage|arn|alias|href|source)[\"'\]]{0,2}[ \t]{0,3}(?:=>|:=|[:=])"
    r"[ \t]{0,3}[\"'`]?$"
)
#: What stands right before a value that is something else than a service's key.
_OTHERWISE: Final = spotter(
    r"(?i)(?:(?:\b|_)ids?|name|url|uri|sha-?\d*|hash|commit|\bref|_ref|\brev|revision|version|path|file|image|digest|checksum|etag"
    r"|user|\borg|_org|account|project|host|region|public|dsn|branch|\btag|_tag|event|repo|channel|customer|model|release|build|trace|span|thread"
    r"|object|record|document|session|bucket|namespace|index|table|topic|queue|cluster|node|\bpod|\bof|\bin)[\"'\]]{0,2}"
    r"[ \t]{0,3}(?:=>|:=|[:=#])?[ \t]{0,3}[\"'`]?$|(?:Id|Url|Sha|Hash)[\"']?[ \t]{0,3}[:=][ \t]{0,3}[\"'`]?$"
)
#: How services number what is no secret: customers, charges, answers.
_NUMBERED: Final = re.compile(
    r"(?:cus|pi|ch|sub|price|prod|evt|acct|req|seti|txn|msg|run|call|chatcmpl|usr|org|proj)[_-]"
)
#: What makes even a UUID a secret: a name for one before it, and none of all the things that UUIDs number.
_NAMES_IT: Final = spotter(
    r"(?i)(?:api[_ -]?key|token|secret|passw(?:or)?d|auth[_-]?key|access[_ -]?key|\bauthorization|service[_-]?key)[^\n.;]{0,32}$"
    r"|(?:api[_-]?key|token|secret|password)[\"']?\s{1,20}[\"']?value[\"']?:\s?[\"']?$|(?:api[_-]?key|token|secret)[\"'][\s>:{,]{0,6}(?:default|value|<string)[\"'\s=:>]{0,8}$|(?:api[_ -]?key|token|secret|password):\s{1,12}$|[?&]key=$|\bkey=$|\bthe key $"
    r"|(?:\b|_|-)(?:anypoint|coinapi|docusign|heroku|hubspot|kucoin|loggly|onesignal|opsgenie|postmark|saucelabs|scaleway|snyk|splunk"
    r"|squarespace|statuspage|zenserp)(?:[_-](?:api|auth|key))*\W{1,8}$"
)
_NUMBERS_IT: Final = spotter(
    r"(?i)(?:[_-]|\b)(?:ids?|uuid|guid|user|account|customer|order|request|session|trace|device|tenant|object|record|job|run"
    r"|task|event|message|transaction|entity|row|volume|instance|correlation|idempotency|cache|primary|foreign|partition)\b"
)
#: The first half of a token, and the dot that joins them: no member of an object.
_HALF: Final = spotter(r"[A-Za-z][0-9A-Z]*[0-9][A-Za-z0-9]{3,}\.$|[0-9][A-Za-z0-9]*[A-Za-z][A-Za-z0-9]{3,}\.$")
#: A sign that begins a value: base 64 knows it as a digit.
_BEGINS: Final = (b"//", b'"-', b"'-", b"=-", b'"+', b"'+", b"=+", b'"/', b"'/", b"=/")


def _context(hit: Hit) -> Verdict:
    """Confirm a random token by a word such as key or token, or by a service's name, shortly before it."""
    value = hit.value
    whole = UUID.fullmatch(value)
    if not (whole or random_token(value)):
        return False
    before = hit.before[-56:]
    if _NOT_AROUND(before[-32:]) or _NUMBERED.match(value) or before.endswith(b"auth0|"):
        return False
    glued = (before[-1:] in b"/@#.-+" and before[-2:] not in _BEGINS) or hit.after in (b"(", b"@")
    if glued and (before[-1:] != b"." or len(value) < 20 or not _HALF(before)):
        return False
    if whole:
        return _NAMES_IT(before) and not _NUMBERS_IT(before[-40:].rpartition(b"\n")[2])
    if _WORD_AROUND(before) and _WORD_AROUND(_INNOCENT.sub(b"", before)):
        return True
    if len(value) < 16 or not _SERVICE_AROUND(before) or _OTHERWISE(before[-32:]):
        return False
    after, beyond = hit.after, hit.text[hit.end + 1 : hit.end + 2]
    return after != b"/" and not (after == b"." and beyond.isalnum()) and before[-1:] not in b"/|&$"


def _long() -> str:
    """Return the pattern of a row of 15 characters or more with a digit in it, or of 24."""
    rest, word = "[A-Za-z0-9_/+~-]", "[A-Za-z_/+~-]"
    early = (rf"[A-Za-z_]{word}{{{n - 1}}}\d{rest}{{{14 - n},}}" for n in range(1, 15))
    return (
        rf"\b(?:\d{rest}{{14,}}|{'|'.join(early)}|[A-Za-z_]{word}{{14,}}\d{rest}*"
        rf"|[A-Za-z_]{word}{{23,}})={{0,2}}"
    )


DETECTORS: Final = (
    Detector("secret_in_context", _long(), group="secrets", replacement="[API_KEY]",
             priority=40, cap=512, weight=MEDIUM, yields=True, check=_context, hint=LONG_RUN, after=f"{_WORDS}|{_SERVICES}"),
)  # fmt: skip
