"""Secrets told by the form in which they are written: a command line, an element, a call, a signed address."""

from __future__ import annotations

from typing import Final

from policies.redact.checks import classes, repetitive, spotter
from policies.redact.detector import DEAR, Detector, Hit, Verdict
from policies.redact.values import dummy, random_token

_NAME: Final = r"[\w.-]*(?:password|passwd|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|auth[_-]?key|salt)"


#: Services whose keys are bare rows of letters and digits: their name says what stands there.
_SERVICES: Final = (
    "algolia|amplitude|auth0|bitbucket|braintree|bugsnag|cloudflare|cloudinary|codecov|cohere|coinbase|contentful|datadog|deepgram"
    "|deepl|elevenlabs|etsy|fastly|firebase|flickr|freshdesk|github|gitlab|heroku|infura|intercom|ipinfo|jira|kraken|kucoin"
    "|launchdarkly|linkedin|looker|mailchimp|mailgun|mattermost|messagebird|mistral|mixpanel|mongodb|netlify|newrelic|okta|openai"
    "|opsgenie|pagerduty|paypal|pinecone|posthog|pushover|rapidapi|rollbar|sendbird|sendgrid|sentry|shodan|spotify|stripe|sumologic"
    "|supabase|tavily|travisci|trello|twilio|twitch|twitter|vercel|virustotal|vonage|zendesk|zoom"
)
_OTHERWISE: Final = spotter(
    r"(?i)(?:[_.-]?(?:id|ids|name|url|uri|sha|sha1|sha256|hash|commit|ref|rev|revision|version|path|file|image|digest|checksum"
    r"|user|org|account|project|host|region|public|dsn|branch|tag|event|repo)|(?:Id|Url|Sha|Hash))$"
)


def _service(hit: Hit) -> Verdict:
    """Confirm a random value that is named after a service, unless the name says that it is something else."""
    span = next(span for span in hit.spans[2:] if span[0] >= 0)
    value = hit.text[span[0] : span[1]].decode("utf-8", "replace")
    if _OTHERWISE(hit.text[hit.spans[1][0] : hit.spans[1][1]]) or "://" in value or "." in value or "/" in value:
        return False
    return span if len(value) >= 20 and random_token(value) else False


def _session(hit: Hit) -> Verdict:
    return hit.spans[1] if random_token(hit.group(1).replace("%", "")) else False


def _told(hit: Hit) -> Verdict:
    """Confirm a value that stands where only a secret stands: no placeholder, no variable, no plain word."""
    span = next(span for span in hit.spans[1:] if span[0] >= 0)
    value = hit.text[span[0] : span[1]].decode("utf-8", "replace")
    lower, upper, digits, other = classes(value)
    if len(value) < 6 or dummy(value) or repetitive(value) or value[0] in "$<{(-/":
        return False
    if value[0] == "%" and not value[1:3].isalnum():
        return False
    if " " in value and other - value.count(" ") < 3:  # prose
        return False
    return span if (digits and (lower or upper or other)) or (upper > 1 and lower > 1) else False


DETECTORS: Final = (
    Detector("ssh2_private_key", r"---- BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY ----(?:[^-]|-[^-]){16}(?:[^-]|-[^-])*(?:---- END [A-Z0-9 ]{0,30}PRIVATE KEY ----)?",
             group="secrets", replacement="[PRIVATE_KEY]", priority=100, hint="---- BEGIN [A-Z0-9 ]"),
    Detector("cli_password", r"\bsshpass[ \t]{1,4}-p[ \t]{0,4}[\"']?([^\s\"']{3,})"
             r"|\b(?:mysql(?:dump|admin|import|sh)?|mariadb(?:-dump)?)\b[^\n|;&]*[ \t]-p[\"']?([^\s\"'=-][^\s\"']{2,})", cap=320,
             group="secrets", replacement="[PASSWORD]", priority=84, weight=DEAR, check=_told, hint=r"\bsshpass[ \t]|[ \t]-p[\"']?[^\s\"'=-][^\s\"']{2}"),
    Detector("element_secret", rf"(?i)<({_NAME})>([^<>\s]{{3,}})</", group="secrets", replacement="[PASSWORD]", priority=84, cap=2_048,
             check=lambda hit: _in_group(hit, 2), hint=r"(?i)(?:password|passwd|phrase|pwd|secret|token|key|salt)>[^<>\s]"),
    Detector("call_secret", rf"(?i)[\"']{_NAME}[\"'],[ \t]{{0,4}}(?:\"([^\"\n]*\d[^\"\n]*)\"|'([^'\n]*\d[^'\n]*)')", group="secrets",
             priority=84, weight=DEAR, check=_told, cap=512,
             hint=r"(?i)(?:password|passwd|phrase|pwd|secret|token|key|salt)[\"'],[ \t]{0,4}(?:\"[^\"\n]|'[^'\n])"),
    Detector("service_secret", rf"(?i)\b((?:{_SERVICES})[\w.-]*)[\"']?\]?[ \t]{{0,3}}(?:=>|:=|=|:)[ \t]{{0,3}}"
             r"(?:\"([A-Za-z0-9_+=-]{20,})\"|'([A-Za-z0-9_+=-]{20,})'|([A-Za-z0-9_+=-]{20,}))", cap=320, group="secrets", priority=60,
             weight=2 * DEAR, check=_service, hint=rf"(?i)\b(?:{_SERVICES})[\w.-]*[\"']?\]?[ \t]{{0,3}}[:=][=>]?[ \t]{{0,3}}[\"']?[\w+=-]{{12}}"),
    Detector("session_cookie", r"(?i)\b(?:session|sess|sid|auth|remember_me|[a-z0-9]+_session)=([A-Za-z0-9%._~+/-]{16,})", cap=512,
             group="secrets", replacement="[AUTH_TOKEN]", priority=60, weight=DEAR, check=_session, hint=r"(?i)(?:sess|session|sid|auth|_me)=[\w%.~+/-]{16}"),
    Detector("oracle_connection", r"(?i)\bjdbc:oracle:(?:thin|oci8?):[^\s/@\"']+/[^\s@\"']+@[^\s\"'<>]+", cap=512,
             group="secrets", replacement="[DB_CONNECTION_STRING]", priority=98),
    Detector("azure_sas", r"[?&;]sig=([A-Za-z0-9%+/_-]{32,90}={0,2})", group="secrets", priority=84, weight=DEAR, check=_told,
             hint=r"[?&;]sig=[\w%+/-]{16}"),
    Detector("zapier_webhook", r"\bhooks\.zapier\.com/hooks/catch/\d{4,12}/[A-Za-z0-9]{5,20}", group="secrets",
             replacement="[WEBHOOK_URL]", priority=90),
)  # fmt: skip


def _in_group(hit: Hit, n: int) -> Verdict:
    """Confirm an element's text, which may be a word: the element says what it is."""
    value = hit.group(n)
    return hit.spans[n] if not dummy(value) and value[0] not in "$<{%(" else False
