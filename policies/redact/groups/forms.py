"""Secrets told by the form in which they are written: a command line, an element, a call, a signed address."""

from __future__ import annotations

import re
from typing import Final

from policies.redact.checks import classes, repetitive
from policies.redact.detector import DEAR, Detector, Hit, Verdict
from policies.redact.gates import SIGN, WORD
from policies.redact.values import UUID, dummy, random_token, told

_NAME: Final = r"[\w.-]*(?:password|passwd|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|auth[_-]?key|salt)"


#: A few words of a command line: prose that begins with a command's name must not wait long in a stream.
_FEW: Final = r"(?:[ \t]{1,2}[^\s|;&]+){0,5}"


def _mixed_value(hit: Hit) -> Verdict:
    """Confirm letters and digits mixed, without a word of code or prose in them."""
    span = next(span for span in hit.spans[1:] if span[0] >= 0)
    value = hit.text[span[0] : span[1]].decode("utf-8", "replace")
    lower, upper, digits, _ = classes(value)
    value = value.rstrip(".!")
    if len(value) < 6 or not told(value) or repetitive(value[:96]) or value[0] in "$<{(/%#@":
        return False
    if b"pass" in hit.text[hit.start : span[0]].lower():  # a word and a number are a password, but no key
        known = digits and lower + upper > 1 and not _ALGORITHM(value)
        return (span[0], span[0] + len(value.encode())) if known else False
    if digits < 2 or lower + upper < 2:
        return False
    return span if UUID.fullmatch(value) or ("://" not in value and _SWITCH(value)) else False


_ALGORITHM: Final = re.compile(
    r"(?i)(?:sha|md|utf|base|pbkdf|argon|aes|des|oauth|ripemd|v)-?\d.*|\d{4}-\d\d-\d\d.*|\d+[a-z]{1,12}|[a-z]+-\d+"
).fullmatch
#: A digit inside of letters, or letters inside of digits: no word that is counted.
_SWITCH: Final = re.compile(r"[A-Za-z][^A-Za-z]*\d[^A-Za-z]*[A-Za-z]|\d[^0-9]*[A-Za-z][^0-9]*\d").search


def _attribute(hit: Hit) -> Verdict:
    """Confirm the value of an attribute or an element that is named as a secret."""
    span = [span for span in hit.spans[1:] if span[0] >= 0][1]
    value = hit.text[span[0] : span[1]].decode("utf-8", "replace")
    lower, upper, digits, _ = classes(value)
    if (
        dummy(value)
        or repetitive(value)
        or " " in value
        or value[0] in "$<{(-/@%#"
        or not (digits or (upper > 1 and lower > 1))
    ):
        return False
    named = b"pass" in hit.text[hit.start : span[0]].lower()
    return span if named or digits > 1 or random_token(value) else False


def _session(hit: Hit) -> Verdict:
    return hit.spans[1] if random_token(hit.group(1).replace("%", "")) else False


def _told(hit: Hit) -> Verdict:
    """Confirm a value that stands where only a secret stands: no placeholder, no variable, no plain word."""
    span = next(span for span in hit.spans[1:] if span[0] >= 0)
    value = hit.text[span[0] : span[1]].decode("utf-8", "replace")
    lower, upper, digits, other = classes(value)
    if len(value) < 6 or not told(value) or repetitive(value) or value[0] in "$<{(-/":
        return False
    if value[0] == "%" and not value[1:3].isalnum():
        return False
    if " " in value and other - value.count(" ") < 3:  # prose
        return False
    return span if (digits and (lower or upper or other)) or (upper > 1 and lower > 1) else False


_AN: Final = "[A-Za-z0-9]"
_W: Final = "[A-Za-z0-9_-]"
#: Marks of keys, and what must follow them, for keys that stand one upon the other: their own patterns end where a word
#: ends. The runs are counted in the check: counters within counters would make an automaton that hostile text blows up.
_MARKED: Final = {
    "A[KS]IA": "[A-Z0-9]{16}", "gh[pousr]_": f"{_AN}{{36}}", "github_pat_": r"\w{82}", "glpat-": f"{_W}{{20}}",
    "sk-": rf"(?:[0-9a-f]{{32}}|{_AN}{{40}}|(?:proj|svcacct|admin|ant|or|lf)-{_W}{{32}})", "AIza": f"{_W}{{35}}", "gsk_": f"{_AN}{{50}}",
    "xai-": f"{_AN}{{70}}", "hf_": f"{_AN}{{34}}", "r8_": f"{_AN}{{37}}", "xox[a-z]-": "[A-Za-z0-9-]{20}", "[sr]k_(?:live|test)_": f"{_AN}{{16}}",
    r"SG\.": rf"{_W}{{22}}\.{_W}{{43}}", "npm_": f"{_AN}{{36}}", "pypi-AgE": f"{_W}{{70}}", "dop_v1_": "[0-9a-f]{64}",
    "shpat_": "[0-9a-fA-F]{32}", "dckr_pat_": f"{_W}{{27}}", "figd_": f"{_W}{{40}}", "lin_api_": f"{_AN}{{40}}", "ntn_": f"{_AN}{{40}}",
}  # fmt: skip
_MARKS: Final = "|".join(_MARKED)
_KEY: Final = re.compile("|".join(mark + body for mark, body in _MARKED.items())).match
_MARK: Final = re.compile(_MARKS)


def _glued(hit: Hit) -> Verdict:
    """Confirm a row that begins with a whole key in which another whole one begins later."""
    value = hit.value
    first = _KEY(value)
    return first is not None and any(_KEY(value, mark.start()) for mark in _MARK.finditer(value, first.end()))


DETECTORS: Final = (
    Detector("glued_keys", rf"\b(?:{_MARKS})(?:\.?{_W}){{12,}}(?:{_MARKS})(?:\.?{_W})*", group="secrets", priority=90, cap=2_048, weight=DEAR,
             check=_glued, core=_MARKS),
    Detector("ssh2_private_key", r"---- BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY ----(?:[^-]|-[^-]){16}(?:[^-]|-[^-])*(?:---- END [A-Z0-9 ]{0,30}PRIVATE KEY ----)?",
             group="secrets", replacement="[PRIVATE_KEY]", priority=100, hint="---- BEGIN [A-Z0-9 ]"),
    Detector("cli_password", r"\bsshpass[ \t]{1,4}-p[ \t]{0,4}[\"']?([^\s\"']{3,})"
             rf"|\b(?:mysql(?:dump|admin|import|sh)?|mariadb(?:-dump)?){_FEW}[ \t]{{1,2}}-p[\"']?([^\s\"'=-][^\s\"']{{2,}})"
             r"|\b(?:psexec|docker[ \t]login|podman[ \t]login|az[ \t]login|mongo(?:sh|dump|restore)?|sqlcmd|redis-cli|ldapsearch|ldapadd|unzip|zip|7z|winexe"
             r"|evil-winrm|helm[ \t]registry[ \t]login|htpasswd|smbclient|rpcclient)"
             rf"{_FEW}[ \t]{{1,2}}-(?:-?p|P|a|w|U|b[ \t]{{1,3}}\S+[ \t]{{1,3}}\S+)[ \t]{{1,3}}[\"']?(?:[\w.\\-]+%)?"
             r"([^\s\"'-][^\s\"']{2,})|\bpass:([^\s\"':]{4,})|(?i)\bConvertTo-SecureString[ \t]{1,3}(?:-String[ \t]{1,3})?[\"']([^\"'\n]{4,})[\"']"
             r"|(?i)\bnet[ \t]user[ \t]{1,3}[^\s/]+[ \t]{1,3}([^\s/\"'*,]*[^A-Za-z\s/\"'*,][^\s/\"'*]*)", cap=320,
             group="secrets", replacement="[PASSWORD]", priority=84, weight=DEAR, check=_told, gate=SIGN, hint=r"\bsshpass[ \t]|[ \t]-(?:p[\"']?[^\s\"'=-]|-?[pPawUb][ \t])|\bpass:[^\s\"':]|(?i:ConvertTo-Secure|\bnet[ \t]user)"),
    Detector("element_secret", rf"(?i)<({_NAME})>([^<>\s]{{3,}})</", group="secrets", replacement="[PASSWORD]", priority=84, cap=2_048,
             check=lambda hit: _in_group(hit, 2), gate=WORD, hint=r"(?i)(?:password|passwd|phrase|pwd|secret|token|key|salt)>[^<>\s]"),
    # A type between name and value, or nothing but a blank, a comma or a bar.
    Detector("typed_secret", rf"(?i)\b{_NAME}[\w.-]*(?::[ \t]{{0,2}}&?(?:'static )?(?:string|str|nsstring|text)[?!]?[ \t]{{0,3}}=[ \t]{{0,3}}"
             r"|[ \t]{1,3}(?:string[ \t]{0,3}=[ \t]{0,3})?)(?:\"([^\"\s]*\d[^\"\s]*)\"|'([^'\s]*\d[^'\s]*)')"
             rf"|(?i)\b{_NAME}[\w-]*[,;|][ \t]{{0,2}}[\"']?([A-Za-z_+/=.-]*\d[A-Za-z0-9_+/=.-]{{7,}})"
             r"|(?i)\b(?:password|passwd|passphrase)[ \t]{1,3}(?:\d[ \t]{1,2})?([A-Za-z!@#$%^&*_.+-]*\d[A-Za-z0-9!@#$%^&*_.+-]*)", cap=512,
             group="secrets", priority=75, weight=DEAR, check=_mixed_value, gate=WORD,
             hint=r"(?i)(?:password|passwd|passphrase|pwd|secret|token|key|salt)[\w.-]*(?::[ \t]{0,2}&?(?:'static )?(?:string|str|nsstring|text)[?!]?[ \t]{0,3}="
                  r"|[ \t]{1,3}(?:string[ \t]{0,3}=[ \t]{0,3})?(?:\"[^\"\s]|'[^'\s])|[,;|][ \t]{0,2}[\"']?[\w+/=.-]{8})|(?i)\bpass(?:word|wd|phrase)[ \t]{1,3}(?:\d[ \t]{1,2})?[A-Za-z!@#$%^&*_.+-]*\d"),
    Detector("command_secret", rf"\b(?:ENV|ARG|setenv|setx|set|env:set|config:set)(?:[ \t]-[a-zA-Z]{{1,3}})?[ \t]{{1,4}}(?i:{_NAME}[\w-]*)[ \t]{{1,4}}"
             r"[\"']?([^\s\"'=$-][^\s\"']*\d[^\s\"']*)", cap=512, group="secrets", priority=75, weight=DEAR, check=_mixed_value, gate=WORD,
             hint=r"\b(?:ENV|ARG|setenv|setx|set|env:set|config:set)(?:[ \t]-[a-zA-Z]{1,3})?[ \t]{1,4}(?i:[\w.-]{3})"),
    Detector("call_secret", rf"(?i)[\"']{_NAME}[\"'],[ \t]{{0,4}}(?:\"([^\"\n]*\d[^\"\n]*)\"|'([^'\n]*\d[^'\n]*)')", group="secrets",
             priority=84, weight=DEAR, check=_told, cap=512, gate=WORD,
             hint=r"(?i)(?:password|passwd|phrase|pwd|secret|token|key|salt)[\"'],[ \t]{0,4}(?:\"[^\"\n]|'[^'\n])"),
    Detector("attribute_secret", rf"(?i)\b(?:name|key|id)=[\"']({_NAME}[\w.-]*)[\"'](?:[ \t]{{1,4}}(?:value|content)=(?:\"([^\"\n]{{6,}})\"|'([^'\n]{{6,}})')"
             rf"|>([^<>\n]{{6,}})</)|(?i)<key>({_NAME}[\w.-]*)</key>\s{{0,12}}<string>([^<>\n]{{6,}})</"
             rf"|(?i)\bname:[ \t]{{0,3}}[\"']?({_NAME}[\w.-]*)[\"']?\s{{1,24}}value:[ \t]{{0,3}}(?:\"([^\"\n]{{6,}})\"|'([^'\n]{{6,}})'|([^\s\"']{{6,}}))"
             # Terraform: a variable's default.
             rf"|(?i)\bvariable[ \t]{{1,4}}\"({_NAME}[\w.-]*)\"[ \t]{{0,4}}\{{[^{{}}\"]*(?:\"[^\"\n]*\"[^{{}}\"]*)*?\bdefault[ \t]*=[ \t]*\"([^\"\n]{{6,}})\"",
             group="secrets", priority=84, weight=448, check=_attribute, cap=1_024, gate=WORD, hint=r"(?i)(?:\b(?:name|key|id)=[\"']|\bvariable[ \t]{1,4}\"|<key>|\bname:[ \t]{0,3}[\"']?)[\w.-]*(?:password|passwd|phrase|pwd|secret|token|key|salt)"),
    Detector("session_cookie", r"(?i)\b(?:session|sess|sid|auth|remember_me|[a-z0-9]+_session)=([A-Za-z0-9%._~+/-]{16,})", cap=512,
             group="secrets", replacement="[AUTH_TOKEN]", priority=60, weight=DEAR, check=_session, hint=r"(?i)(?:sess|session|sid|auth|_me)=[\w%.~+/-]{4}"),
    Detector("oracle_connection", r"(?i)\bjdbc:oracle:(?:thin|oci8?):[^\s/@\"']+/[^\s@\"']+@[^\s\"'<>]+", cap=512,
             group="secrets", replacement="[DB_CONNECTION_STRING]", priority=98, hint="(?i)jdbc:oracle:"),
    Detector("azure_sas", r"[?&;]sig=([A-Za-z0-9%+/_-]{32,90}={0,2})", group="secrets", priority=84, weight=DEAR, check=_told,
             hint=r"[?&;]sig=[\w%+/-]{4}"),
    Detector("zapier_webhook", r"\bhooks\.zapier\.com/hooks/catch/\d{4,12}/[A-Za-z0-9]{5,20}", group="secrets",
             replacement="[WEBHOOK_URL]", priority=90),
)  # fmt: skip


def _in_group(hit: Hit, n: int) -> Verdict:
    """Confirm an element's text, which may be a word: the element says what it is."""
    value = hit.group(n)
    return hit.spans[n] if told(value) and value[0] not in "$<{%(" else False
