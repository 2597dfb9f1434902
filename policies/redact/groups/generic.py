"""Secrets that have no format of their own: told by the name they are given, or by what stands around them."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from policies.redact.checks import classes, repetitive, richer, spotter
from policies.redact.detector import DEAR, MEDIUM, Detector, Hit, Verdict
from policies.redact.gates import NAME, WORD
from policies.redact.runs import LONG_RUN
from policies.redact.values import UUID, assigned, dummy, told

_QUOTE: Final = r"""(?:\\{0,4}["'`])"""
#: Between a name and its value: YAML, JSON (escaped, too), shell, Go, Ruby, make, headers, Markdown; aligned or not.
_GLUE: Final = rf"{_QUOTE}?\]?\*{{0,2}}[ \t]*(?:=>|->[ \t]|:{{1,3}}=|\?=|\|\|=|={{1,2}}|:\*{{0,2}})[ \t]*"
#: Groups 2 to 5 are quoted values (the last with escaped quotes), group 6 a bare one.
_VALUE: Final = r"""(?:(?:@|[brBRL]{1,2})?"((?:[^"\\\n]|\\[^\n])+)|[brBRL]{0,2}'((?:[^'\\\n]|\\[^\n])+)|`([^`\n]+)|\\{1,4}["']([^"'\\\n]+)|([^\s"'`\\=>:,;/)|&!?<({\[$%#*][^\s"'`\\]*))"""
#: Names and values have no bound of their own: counters would make the automata ten times larger.
_CAP: Final = 2_048
_SUFFIX: Final = r"(?:[_-]?(?:key|base|value|string|str|text|prod|production|dev|test|live|staging|[0-9]{1,4})){0,2}"


def _named(words: str) -> str:
    return rf"(?i)\b([\w.-]*(?:{words}){_SUFFIX}){_GLUE}{_VALUE}"


def _core(words: str) -> str:
    return rf"(?i)(?:{words}){_SUFFIX}{_GLUE}"


_API: Final = (
    "api[._-]?key|secret|token|access[._-]?key|private[_-]?key|signing[_-]?key|encryption[_-]?key|master[_-]?key"
    "|auth[_-]?key|account[_-]?key|app(?:lication)?[_-]?key|service[_-]?key|licen[cs]e[_-]?key|shared[_-]?key"
    "|storage[_-]?key|consumer[_-]?key|webhook[_-]?key|deploy[_-]?key|admin[_-]?key|credentials?|secret[_-]?id"
    "|sharedaccesskey|signature"
)
_AUTH: Final = (
    "(?:session|refresh|access|auth|id|bearer|csrf|xsrf|oauth|login|sso)[_-]?token|session[_-]?(?:id|key)|j?sessionid"
    "|phpsessid|connect\\.sid|auth[_-]?cookie"
)
_PASSWORD: Final = "password|passwort|passwd|passphrase|contrase(?:n|ñ)a|mot[ _-]?de[ _-]?passe|senha|wachtwoord|kennwort|heslo|has(?:l|ł)o|l(?:o|ö)senord|adgangskode|salasana|pwd|psk|pass|pw"


def _auth(hit: Hit) -> Verdict:
    if hit.group(1).endswith("_authToken") and UUID.match(hit.group(6)):
        return False  # npm's own name; npm takes it only behind a registry's path, which is a detector of its own
    return assigned(hit)


def _aws(hit: Hit) -> Verdict:
    """Judge a value that is named as AWS's: its formats are known, so that another length is no key."""
    name = hit.group(1).lower()
    n = next(n for n in (2, 3, 4, 5, 6) if hit.spans[n][0] >= 0)
    value = hit.group(n).rstrip(",;)]}.")
    if name.endswith("id") or "key" in name:
        upper = re.fullmatch("[A-Z0-9]{16,128}", value)
        if not upper and not re.fullmatch("[A-Za-z0-9/+]{40}", value):
            return False
        if n == 6 and value[0] == "/":  # elsewhere that begins a path
            return repetitive(value) is False and (hit.start, hit.spans[6][0] + len(value))
    return assigned(hit)


def _not_public(hit: Hit) -> Verdict:
    name = hit.group(1)
    if re.search("(?i)aws[\\w.-]*key|existing[_-]?secret$", name) or (
        name.endswith("_authToken") and UUID.match(hit.group(6))
    ):
        return False
    return not re.search("(?i)pub(?:lic|lishable)?[_-]?(?:[a-z]{1,8}[_-]?)?(?:key|token)", hit.group(1)) and assigned(
        hit
    )


_VARIABLE: Final = re.compile(rb"://[^/@]*:(?:\$\{?[A-Za-z_]\w*\}?|<[\w -]+>|\{\{?[\w. ]+\}?\})@")


def _connection(hit: Hit) -> Verdict:
    """Turn down an address whose password is a variable: it is the template of one."""
    return not _VARIABLE.search(hit.text[hit.start : hit.end])


def _password(hit: Hit) -> Verdict:
    return not re.search("(?i)(?:com|by|sur|tres)pass(?:es)?$", hit.group(1)) and assigned(hit)


def _bearer(hit: Hit) -> Verdict:
    value = hit.group(1)
    lower, upper, digits, _ = classes(value)
    return len(value) > 3 and told(value) and (digits > 0 or (len(value) > 15 and lower > 1 and upper > 1))


def _basic(hit: Hit) -> Verdict:
    value = hit.value
    if hit.group(1).lower() != "basic":
        lower, upper, digits, _ = classes(value)
        return not dummy(value) and digits > 0 and (hit.spans[1][0] >= 0 or (lower + upper > 3 and len(value) > 11))
    value = value.rstrip(".")
    try:
        told = b":" in base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
    except (binascii.Error, ValueError):
        return False
    return (hit.secret[0], hit.secret[0] + len(value)) if told else False


def _url_credentials(hit: Hit) -> Verdict:
    password = hit.group(2)
    if (password[0] in "$<{[%" and password[-1] in ">}]%") or (password.startswith("$") and password[1:].isupper()):
        return False
    return hit.spans[1][0], hit.spans[2][1]


def _spoken(hit: Hit) -> Verdict:
    low, high = next(span for span in hit.spans[1:] if span[0] >= 0)
    value = hit.text[low:high].decode("utf-8", "replace").rstrip(".,;:!?)\"'")
    lower, upper, digits, other = classes(value)
    if len(value) < 4 or dummy(value) or not (digits or other) or not (lower + upper + digits):
        return False
    return low, low + len(value.encode())


def _spoken_key(hit: Hit) -> Verdict:
    """Confirm what a sentence calls a key: letters and digits mixed, no date, no version."""
    low, high = next(span for span in hit.spans[1:] if span[0] >= 0)
    value = hit.text[low:high].decode("utf-8", "replace").rstrip(".!&*")
    lower, upper, digits, _ = classes(value)
    if (
        len(value) < 10
        or re.match(r"\d{4}-\d\d-\d\d", value)
        or digits < 2
        or lower + upper < 2
        or dummy(value)
        or repetitive(value[:96])
        or _INNOCENT_KEY(hit.before[-24:])
    ):
        return False
    return low, low + len(value)


_INNOCENT_KEY: Final = spotter(r"(?i)(?:public|primary|foreign|partition|cache|sort)[ _-]$")


def _flag(hit: Hit) -> Verdict:
    value = hit.value
    if hit.before[-1:] and not hit.before[-1:].isspace() and hit.before[-1:] not in b"\"'[(,`":
        return False
    return told(value) and value[0] not in "-$!" and not re.fullmatch(r"[a-z]{1,12}", value)


def _aws_secret(hit: Hit) -> Verdict:
    """Confirm 40 characters of base 64 that stand alone: AWS's secret keys have no mark of their own."""
    value = hit.value
    if len(value) != 40:
        return False
    if hit.after in (b"/", b"+", b"=", b".", b"-", b"_") or (hit.before[-1:] or b" ") in b"/+.-_":
        return False
    lower, upper, digits, _ = classes(value)
    if value.count("/") > 4 or any(len(w) > 14 and w.isalpha() and w[1:].islower() for w in value.split("/")):
        return False
    return lower > 5 and upper > 5 and digits > 0 and richer(value, 4.2) and not repetitive(value)


def _forty() -> str:
    """Return the pattern of 40 characters of base 64 on their own, with a capital among the first 35."""
    tail = r"(?:[A-Za-z0-9]\b|[/+]\B)"
    pattern = rf"[A-Z][A-Za-z0-9/+]{{4}}{tail}"
    for rest in range(5, 39):
        pattern = rf"(?:[A-Z][A-Za-z0-9/+]{{{rest}}}{tail}|[a-z0-9/+]{pattern})"
    return rf"\b{pattern}"


_FORTY: Final = _forty()
DETECTORS: Final = (
    Detector(
        "private_key",
        r"-----BEGIN[ A-Z0-9]{0,40} ?PRIVATE KEY(?: BLOCK)?-----(?:[^-]|-[^-])*(?:-----END[ A-Z0-9]{0,40}"
        r"PRIVATE KEY(?: BLOCK)?-----)?|\bPuTTY-User-Key-File-\d: [^-]+(?:[^-]|-[^-])*?Private-MAC: [0-9a-f]{40,64}"
        r"|<RSAKeyValue>(?:[^<]|<[^/]|</[^R])*</RSAKeyValue>",
        group="secrets", replacement="[PRIVATE_KEY]", priority=100,
    ),
    Detector(
        "db_connection",
        r"(?i)\b(?:jdbc:)?(?:postgres(?:ql)?|mysqlx?|mariadb|mongodb|rediss?|amqps?|mssql|sqlserver|oracle|clickhouse|cockroachdb"
        r"|cassandra|neo4j|bolt|ldaps?|snowflake|nats|vertica|redshift|db2|couchdb|influxdb|hive2|presto|trino|teradata|memcached"
        r")(?:\+[a-z0-9]{1,12}){0,2}://[^\s/@\"'`<>]*:[^\s@\"'`<>]*@[^\s\"'`<>]+"
        r"|\bjdbc:[a-z0-9]{2,14}:[^\s\"'<>]{4,}[?&;:](?:password|pwd)=[^\s\"'<>]+",
        group="secrets", replacement="[DB_CONNECTION_STRING]", priority=98, check=_connection, cap=600,
        hint=r"(?i)jdbc:|://[^\s/@\"'`<>]*:[^\s@\"'`<>]*@",
    ),
    Detector(
        "url_credentials",
        r"(?i)\b[a-z][a-z0-9+.-]+://([^\s:/?#@\"'<>\[\]{}|\\^`]*):([^\s/?#@\"'<>\\`]+)@[A-Za-z0-9\[_$-]",
        group="secrets", replacement="[CREDENTIALS]", priority=95, weight=MEDIUM, check=_url_credentials, hint=r"://[^\s/?#]*:[^\s/?#]+@",
        core="://", cap=512,
    ),
    Detector("aws_key", rf"(?i)\b([\w.-]*aws[\w.-]*(?:key|secret|token|id)[\w-]{{0,8}}){_GLUE}{_VALUE.replace(':,;/)', ':,;)')}",
             core="(?i)aws", hint=r"(?i)aws[\w.-]*(?:key|secret|token|id)", group="secrets", replacement="[AWS_KEY]", priority=85, cap=_CAP, weight=512, check=_aws),
    Detector("aws_secret", _FORTY, group="secrets", replacement="[AWS_KEY]", priority=66,
             check=_aws_secret, hint=LONG_RUN, weight=MEDIUM),
    Detector("auth_data", _named(_AUTH), core=_core(_AUTH), hint=_core(_AUTH), gate=NAME, group="secrets", replacement="[AUTH_TOKEN]", priority=82, cap=_CAP, weight=640, check=_auth),
    Detector("auth_header", r"(?i)\bauthorization[\"']?[ \t]{0,2}[:=][ \t]{0,2}[\"']?(?:(basic|token|digest|apikey|key|sso-key|api-key|genie[_-]?key|klaviyo-api-key)[ \t=]{1,3})?"
             r"[\"']?([A-Za-z0-9+/=_.:-]{6,})", group="secrets", replacement="[AUTH_TOKEN]", priority=84, secret=2, weight=MEDIUM, check=_basic, cap=512,
             hint=r"(?i)authorization[\"']?[ \t]{0,2}[:=]"),
    Detector("bearer_token", r"(?i)\bbearer[ \t]{1,4}[\"']?([A-Za-z._~+/=-]*\d[A-Za-z0-9._~+/=-]*|[A-Za-z._~+/=-]{16,})", group="secrets", priority=92, cap=_CAP,
             weight=DEAR, check=_bearer, hint=r"(?i)\bbearer[ \t]"),
    Detector("api_key", _named(_API), core=_core(_API), hint=_core(_API), gate=NAME, group="secrets", priority=80, cap=_CAP, weight=512, check=_not_public),
    Detector("password", _named(_PASSWORD), core=_core(_PASSWORD), hint=_core(_PASSWORD), gate=NAME, group="secrets", replacement="[PASSWORD]", priority=81, cap=_CAP, weight=512, check=_password),
    Detector("spoken_password", r"(?i)\b(?:[\w.-]{1,24}[_.-])?(?:password|passphrase|passcode|pin(?: code)?|passwort|kennwort|contrase(?:n|ñ)a|mot de passe|senha|wachtwoord)"
             r"(?:[ \t]{1,3}(?:is|was|ist|lautet|es|est|é|è)[ \t:]{1,4}[\"'`]?([A-Za-z.,]{0,40}[^A-Za-z\s.,\"'`][^\s\"'`]{0,88})"
             r"|[ \t]{0,2}(?:は|是|：)[ \t]{0,2}[\"'`]?([A-Za-z.]{0,40}[!#-&(-+\d-@\[-_{-~-][!#-&(-+\w:-@{-~-]{0,88}))",
             group="secrets", replacement="[PASSWORD]", priority=79, weight=MEDIUM, check=_spoken, gate=WORD),
    Detector("spoken_secret", r"(?i)\b(?:key|token|secret|credential)s?[)\"'`*]{0,3}[ \t]{1,2}(?:is|was|ist|lautet|->|=>|\x{2192}|\|)[ \t:]{1,4}"
             r"[\"'`]?([A-Za-z!@#$%^&*+/_.~-]{0,64}\d[A-Za-z0-9!@#$%^&*+/_.~=-]{7,})"
             r"|(?i)\b(?:api|access|secret|auth|license|private)[ -]key[)\"'`*]{0,3}:[)\"'`* \t]{1,4}([A-Za-z!@#$%^&*+/_.~-]{0,64}\d[A-Za-z0-9!@#$%^&*+/_.~=-]{7,})", group="secrets", priority=77, weight=MEDIUM, check=_spoken_key,
             cap=512, gate=WORD, hint=r"(?i)[ -]key[)\"'`*]{0,3}:[)\"'`* \t]|(?:key|token|secret|credential)s?[)\"'`*]{0,3}[ \t]{1,2}(?:is|was|ist|lautet|->|=>|\x{2192}|\|)[ \t:]"),
    Detector("secret_flag", r"(?i)--?[a-z0-9-]*(?:api-?key|token|secret|password|passwd|pwd|passphrase)[ \t=]{1,3}"
             r"[\"']?([^\s\"']{4,})", group="secrets", priority=76, secret=1, weight=MEDIUM, check=_flag, cap=512, gate=WORD,
             core=r"(?i)api-?key|token|secret|passw|pwd|passphrase"),
)  # fmt: skip
