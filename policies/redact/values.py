"""Whether the right side of ``name = value`` is a secret, or only a placeholder, a word, or code."""

from __future__ import annotations

import re
from typing import Final

from policies.redact.checks import KINDS, classes, repetitive, richer, spotter
from policies.redact.detector import Hit, Verdict

_DUMMY: Final = (
    r"(?i)^(?:[<({\[$%#*].*|.*(?:\$\{|\{\{|<%|\.\.\.$|x{5,}|\*{3,}).*|.*(?:your[_-]|placeholder|insert[_-]|change[_-]?me|replace[_-]"
    r"|redacted|[_-]here$|^here[_-]).*|.*\bfake.*|.*afake.*|(?:(?:my|the|some|a|an|not|user|your|new|old|db|test|api|auth|access|app|client|mock)[_-]?){0,4}"
    r"(?:password|passwd|pass|pwd|secret|token|api[_-]?key|key|example|sample|dummy|todo|tbd|na|n/a|foo|bar|test)s?)$"
)
#: What code, templates and schemas write where a value would stand: a look-up, a call, a reference into a vault, a type.
_EXPRESSION: Final = (
    r"^(?:(?:self|this|args|env|ENV|var|local|module|data|secrets?|settings|config|conf|cfg|process|os|import|request|req|Rails|app|props"
    r"|opts|options|params|ctx|context|Deno|std|sys|System|credentials?|keyring)(?:\.|::|->|\[)[A-Za-z_.:\[\]()'\"/#>-]*\d?\)?;?"
    r"|(?:vault|ref\+\w{1,20}|op|ssm|arn|secretsmanager|azurekeyvault|gcp|sm|file|env):[A-Za-z_/].*|[A-Za-z_]+\d?\([^()]*\);?"
    r"|[A-Za-z_]+(?:(?:\.|::|->)[A-Za-z_]+)+[\[(].*|[A-Za-z_]+\[[\"'A-Za-z_, .]*\];?|!(?:Ref|Sub|GetAtt|ImportValue|secret|vault|env)\b.*|@[a-z]+"
    r"|ENC\[.*|(?:String|Int|ID|Boolean|Float)!|(?:required|nullable|sometimes|string|optional)\|.*)$"
)
_NO_VALUE: Final = spotter(rf"{_EXPRESSION}|{_DUMMY}")
#: A release, or a range of them, of a package that bears such a name: ``"minipass": "^7.1.2"``.
_RELEASE: Final = re.compile(r"[~^<>=v]{0,2}\d{1,4}\.\d{1,4}(?:\.(?:\d{1,4}|x|\*))?(?:-[a-z]+\.?\d*)?").fullmatch
#: Words that code and prose put where a value would stand.
_SPELLED: Final = """
lambda def del import from print yield raise with try except pass bytearray secretstr func fn struct enum interface
none null nil true false undefined str string text int integer bool boolean bytes byte float number any object
optional required missing invalid valid wrong incorrect expired empty unset set yes no on off enabled disabled
default auto void char varchar self this env environ config settings params args kwargs request response data input
output type value hidden masked encrypted hashed plain plaintext unknown function async await return new var let
const class public private the a an is are was be must should can will may and or if not for to of in with your our
my their its it that which how what when where who only also please enter provide use using contains based first
last next same other following include omit same-origin anonymous basic bearer
"""
_WORDS: Final = frozenset(_SPELLED.split())
_CODE: Final = spotter(
    r"^(?:[A-Za-z_$@&*!][\w$]*(?:(?:\.|->|::|\?\.)[A-Za-z_$][\w$]*)+[;,)]*|[\w.$:>-]*[A-Za-z_]\w*[(\[].*|[A-Z][A-Z_]{3,}[;,)]*"
    r"|&?\*?[a-z]+_[a-z_]+[;,)]*|[a-z]+(?:[A-Z][a-z]+)+[;,)]*|[A-Z][a-z]+(?:[A-Z][a-z]+)+[;,)]*|@?[\w/-]+/[\w./-]*\.[a-z]{1,5}"
    r"|https?://.*|[~.]{0,2}/[\w./-]*|[\w-]+\.(?:com|org|net|io|cer|pem|crt|json|ya?ml|txt|py|js|ts|go|rb|java)\b.*)$"
)
#: Characters that are enough to tell what a value is.
_LOOK: Final = 96
_MIXED: Final = re.compile(r"[A-Za-z][0-9@#$%^&*]|[0-9@#$%^&*][A-Za-z]")
UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def dummy(value: str) -> bool:
    """Tell whether ``value`` only stands in for a secret: ``<token>``, ``${TOKEN}``, ``your-key-here``, ``****``."""
    return _NO_VALUE(_ends(value)) and value != "secret"


def told(value: str) -> bool:
    """Tell whether ``value``, which stands where only a secret stands, is one: no placeholder, no keyword."""
    return not dummy(value) and value.lower() not in _WORDS


def _ends(value: str) -> bytes:
    """Return a value, of a long one the beginning and the end: it is these that tell."""
    return (value if len(value) <= _ENDS else value[: _ENDS // 2] + value[-_ENDS // 2 :]).encode()


_ENDS: Final = 256


def assigned(hit: Hit) -> Verdict:
    """Judge an assignment: group 1 is the name, groups 2 to 5 quoted values, group 6 a bare one.

    A quoted value is replaced alone, so that JSON stays JSON; a bare assignment as a whole, as the design
    document wants it (``My api_key=123`` becomes ``My [API_KEY]``).
    """
    for n in (2, 3, 4, 5):
        if hit.spans[n][0] >= 0:
            return hit.spans[n] if _quoted(hit.group(n), hit.group(1)) else False
    return _bare(hit)


def _quoted(value: str, name: str) -> bool:
    if len(value) < 3 or not told(value) or _RELEASE(value):
        return False
    if " " in value:  # a passphrase, or prose: only the first mixes letters and digits in one word
        return value.count(" ") < 6 and bool(_MIXED.search(value))
    if len(value) > 24 and repetitive(value[:_LOOK]):
        return False
    if _CODE(_ends(value)) and not re.search(r"\d", value):
        return (
            value[0] not in "/@~."
            and "/" not in value
            and not re.match(r"[A-Z][A-Z_]{3,}$|[\w-]+\.[a-z]{2,4}\b", value)
        )
    if "://" in value or value.startswith("arn:"):
        return False
    return _not_its_name(value, name)


def _bare(hit: Hit) -> Verdict:
    name, value = hit.group(1), hit.group(6)
    start, low = hit.start, hit.spans[6][0]
    if hit.before[-1:] in (b"?", b"&"):
        value = re.split("[&#]", value)[0]
    value = value.rstrip(",;)]}>:")
    if "</" in value:
        value = value.partition("</")[0]
    value = value.rstrip(".") if not value.endswith("...") else value
    if value.endswith("...") and len(value) < 15:  # elided, not told
        return False
    if not value or (dummy(value) and not value.endswith("...")) or re.fullmatch("0x[0-9a-fA-F]{1,8}", value):
        return False
    glue = hit.text[hit.spans[1][1] : low]
    tight = glue == b"="
    named = glue[:1] in (b'"', b"'", b"`", b"\\") or b"*" in glue
    lowered = value.lower()
    if lowered in _WORDS or value[0] in "=>:,;/)|&!?" or not _not_its_name(value, name):
        return False
    if len(value) > 24 and repetitive(value[:_LOOK]):
        return False
    if not re.match("[spr]k_", value) and _CODE(_ends(value)) and not _confirmed(value):
        return False
    digits = classes(value)[2]
    if not digits and not tight and re.fullmatch("[A-Za-z_.-]+", value) and not re.match("[spr]k_", value):
        # A bare word after a colon: YAML's value if the line ends here, prose if it goes on.
        if hit.after not in (b"", b"\n", b"\r") or b"\n" in glue or len(value) < 5 or glue[:1] not in (b":", b"="):
            return False
        line = hit.before.rpartition(b"\n")[2].strip(b" \t-")
        if line or value[0].isupper():
            return False
    if digits == len(value) and (len(value) < 3 or (not tight and len(value) < 16 and "pass" not in name.lower())):
        return False
    if digits == len(value) and re.search(r"(?i)tokens?$", name) and len(value) < 12:
        return False
    end = low + len(value.encode())
    return (low, end) if named else (start, end)


def _not_its_name(value: str, name: str) -> bool:
    """Return False where the value only repeats its name: ``token=auth_token``, ``api_key=self.api_key``."""
    if len(value) > _LOOK:
        return True
    plain = re.sub(r"[^a-z]", "", value.lower())
    last = re.sub(r"[^a-z]", "", re.split(r"[.\s]", name.lower())[-1])
    return not (last and plain.endswith(last) and len(plain) < len(last) + 12 and not re.search(r"\d", value))


def _confirmed(value: str) -> bool:
    """Tell whether something that looks like code is too random for a name."""
    return bool(re.search(r"\d", value)) and "(" not in value and random_token(value)


def random_token(value: str) -> bool:
    """Tell whether ``value`` looks drawn by chance: its classes mixed, no words, no repetition."""
    value = value.strip("=_-/+~")[:_LOOK]
    size = len(value)
    return (
        size >= 15 and _mixed(value, size) and not UUID.fullmatch(value) and not repetitive(value) and not dummy(value)
    )


def _mixed(value: str, size: int) -> bool:
    lower, upper, numbers, other = classes(value)
    if upper > 1 and numbers * 4 < size and sum(map(len, _HUMPS(value))) * 20 > size * 13:
        return False
    if numbers == 0 and sum(map(len, _SYLLABLES(value))) * 4 > size * 3:
        return False
    if numbers == 0:
        return (
            size >= 24 and lower > 4 and upper > 4 and other < 3 and _switches(value) * 3 > size and richer(value, 4.0)
        )
    if lower + upper == 0:
        return False
    if not other and _HEX(value):
        return size >= 16 and numbers > 3 and lower + upper > 2 and richer(value, 2.8)
    if _switches(value) * 6 < size:
        return False
    if other:
        parts = _PARTS(value)
        longest = max(parts, key=len)
        if len(longest) < 10 and sum(map(bool, map(_MIXED_PART, parts))) * 2 <= len(parts):
            return False
        if len(longest) >= 10 and longest.isalpha() and _switches(longest) * 4 < len(longest):
            return False
        if all(map(_WORDLIKE, parts)) and not (size > 30 and _switches(value) * 3 > size):
            return False
    return richer(value, 3.2)


#: The words of a name in camel case.
_HUMPS: Final = re.compile("[A-Z]?[a-z]{3,}").findall
_SYLLABLES: Final = re.compile("[A-Z]?[a-z]{2,}").findall
_HEX: Final = re.compile("[0-9a-fA-F]+").fullmatch
_PARTS: Final = re.compile(r"[^A-Za-z0-9]+").split
_WORDLIKE: Final = re.compile(r"[A-Za-z]*|[A-Za-z]{3,}\d{1,3}|\d*").fullmatch
_MIXED_PART: Final = re.compile(r"\d.*[A-Za-z]|[A-Za-z].*\d", re.DOTALL).search


def _switches(value: str) -> int:
    """Return how often the class of character changes: words do it rarely, chance often."""
    kinds = value.encode("utf-8", "replace").translate(KINDS)
    size = len(kinds)
    row = int.from_bytes(kinds, "big")
    # Each byte beside the one before it: nothing is left where they are alike.
    return max(0, size - (row ^ row >> 8).to_bytes(size, "big").count(0) - 1)
