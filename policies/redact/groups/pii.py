"""Data about persons: told by format, checksum and, for bare numbers, by the words around them."""

from __future__ import annotations

import re
from typing import Final

from policies.redact.checks import IBAN_LENGTHS, base58check, bech32, card, iban, ripple, spotter
from policies.redact.detector import DEAR, MEDIUM, Detector, Hit, Verdict
from policies.redact.gates import NUMBER

_FILES: Final = frozenset(
    [
        "png",
        "jpg",
        "jpeg",
        "gif",
        "svg",
        "webp",
        "ico",
        "css",
        "js",
        "ts",
        "jsx",
        "tsx",
        "map",
        "py",
        "rb",
        "go",
        "rs",
        "java",
        "json",
        "yml",
        "yaml",
        "md",
    ]
)


def _email(hit: Hit) -> Verdict:
    value = hit.value
    local, _, domain = value.partition("@")
    if local == "git" and hit.after in (b":", b"/"):  # an SSH remote, not a mailbox
        return False
    if domain.rpartition(".")[2].lower() in _FILES:
        return False
    if not _IN_URL(local) or (_USER_BEFORE(hit.before) and not re.match(r"\d{1,5}[/?]", local)):
        return True
    # A local part may hold these signs, but only an address's path and query do: the rest of the link stays.
    start = max(map(local.rfind, "/?&")) + 1
    if not (local.startswith("/") and "?" not in local):
        start = local.find("=", start) + 1 or start
    return (hit.start + len(local[:start].encode()), hit.end) if start < len(local) else True


_IN_URL: Final = re.compile("[/?&]").search
#: What stands before a port, or before a password that holds a slash.
_USER_BEFORE: Final = spotter(r"://[^\s/?#:@]*:$")


_CARD_GLUED: Final = spotter(r"[0-9A-Za-z][-_.]$|\b[A-Z]{2}\d{2}[ -]?(?:\w{4}[ -]?)*$|\d{4} $")


_MARKS: Final = str.maketrans("", "", " -.")
_DIGITS_BEFORE: Final = re.compile(rb" \d(?:[ -]?\d){12,18}").match


def _card(hit: Hit) -> Verdict:
    value = hit.value
    if not card(value.translate(_MARKS)):
        # Sixteen digits, and behind a blank an expiry's month or a security code.
        if value[19:20] != " " or not card(value[:19].translate(_MARKS)):
            return False
        return (hit.start, hit.start + 19) if not _CARD_GLUED(hit.before[-40:]) or _card_before(hit) else False
    if hit.after in (b"-", b"_", b".") and hit.text[hit.end + 1 : hit.end + 2].isalnum():
        return False
    return not _CARD_GLUED(hit.before[-40:]) or _card_before(hit)


def _card_before(hit: Hit) -> bool:
    """Tell whether the digits before this number are a card of their own (a list of cards)."""
    found = _DIGITS_BEFORE(hit.before[::-1])  # from the end: forwards each of many digits would be tried as the first
    return bool(found and card(re.sub(rb"[^0-9]", b"", found.group()[::-1]).decode()[-16:]))


def _iban(hit: Hit) -> Verdict:
    text = hit.value.upper()
    wanted = IBAN_LENGTHS.get(text[:2], 0)
    count = 0
    for i, char in enumerate(text):
        count += char not in " -"
        if count == wanted:
            if text[i + 1 : i + 2].isalnum() or (i + 1 == len(text) and hit.after.isalnum()):
                return False
            return (hit.start, hit.start + i + 1) if iban(re.sub("[ -]", "", text[: i + 1])) else False
    return False


_NEAR: Final = (
    r"(?i)phone|telephone|\btel\b|mobile|\bmob\b|\bcell|\bfax|whats.?app|\bsms\b|\bcall|\bdial|hotline|contact|reach|\btext me|handy"
    r"|(?:israeli|japanese|cn|us|uk|indian|brazilian|my|chinese|french|german|home|work|office) number|telefon|\bmobil\b|\bring\b"
    r"|\b(?:desk|direct|ph)[:.]|\btexted\b|(?-i:\b[TMPF][:.] ?[(0-9])"
)
_PHONE_WORDS: Final = spotter(_NEAR)
#: Words that are enough for digits in groups, and too little for a bare row of them.
#: Numbers of something else: an order, an invoice.
_OTHER_NUMBER: Final = spotter(
    r"(?i)(?:order|invoice|ticket|case|ref(?:erence)?|account|tracking|serial|part|model|customer|policy|claim|confirmation|booking|flight"
    r"|transaction|contract|article|item|batch|lot|version|build)[ _-]?(?:no|nr|number|#)[.:#]?[ \t]{0,2}$"
)
_NUMBER_WORDS: Final = spotter(r"(?i)\bnumber|\btext\b|\bnr\b")
#: What says right before a number that it is a phone's: enough for a row of seven or eight digits.
_SAYS: Final = spotter(
    r"(?i)(?:phone|tel|mobile|mobil|mob|cell|fax|call|dial|ring|text|sms|what.?sapp|handy|telefon|hotline|desk|direct|ph|\b(?-i:[TMPF]))(?: (?:me|us|him|her|them))?"
    r"(?: (?:no|nr|num|number)\.?)?(?: (?:at|on|is|to))?[ \t\"']{0,2}[:=#.]{0,2}[ \t\"'(]{0,3}$"
)
_NEAR_WORDS: Final = _NEAR + r"|\bnumber|\btext\b|\bnr\b"
_DIGITS: Final = re.compile(r"\d+").findall
_SSN: Final = r"(?i)\bssn\b|social.?security|\bss#|taxpayer|\bitin\b|\btin\b"
_SSN_WORDS: Final = spotter(_SSN)
_DATE: Final = re.compile(
    r"(?:19|20)\d\d([-./ ])\d{1,2}\1\d{1,2}(?:[-./ ]\d{1,2})*|\d{1,2}([-./ ])\d{1,2}\2(?:19|20)\d\d(?:[-./ ]\d{1,2})*"
    r"|\d{1,2}([-./ ])\d{1,2}\3\d\d|(?:19|20)\d\d ?[-/] ?(?:19|20)\d\d"
)
_DAY: Final = re.compile(r"(?:19|20)\d\d(?:0[1-9]|1[0-2])[0-3]\d").fullmatch
_GLUED: Final = spotter(r"[0-9A-Za-z_][-./_:=#$]?$|[$#=/.*-]$|\d[ ,]$|\d{4}[ -]{1,2}$")
#: What may stand right before a number and only introduces it: ``tel=``, ``is``, ``91-``, a postcode.
_TIED: Final = spotter(
    r"(?i)(?:phone|tel|mobile|cell|fax|call|number|sms|is)[:=]?$|(?:^|\D)\d{1,3}-$|[A-Z]{2} \d{5} $|[=(\[>]$"
)
#: What a label behind a number begins with: ``415-555-0132-Phone``.
_LABELS: Final = (b"P", b"p", b"F", b"f", b"M", b"m", b"C", b"c")
_IBAN_BEFORE: Final = spotter(r"\b[A-Z]{2}\d{2} (?:[A-Z0-9]{4} )*$")


def _phone(hit: Hit) -> Verdict:
    digits = re.sub("[^0-9]", "", hit.value.partition("x")[0])
    if not 7 <= len(digits) <= 15 or len(set(digits)) < 3:
        return False
    if hit.value[-2] in " .-" and "x" not in hit.value:
        return False
    after, beyond = hit.after, hit.text[hit.end + 1 : hit.end + 2]
    if after in (b"_", b"/", b"%") or (after in (b".", b",", b":") and (beyond.isalnum() or beyond == b":")):
        return False
    if after == b"-" and beyond not in _LABELS:
        return False
    before = hit.before[-16:]
    return not _GLUED(before) or _TIED(before)


def _national(hit: Hit) -> Verdict:
    """Confirm a number in a country's own notation, with a trunk 0 or none."""
    before = hit.before[-2:]
    if before[1:] in (b" ", b".", b"-", b"/") and before[:1].isdigit():  # inside a longer row of numbers
        return False
    text = hit.value
    first = text.lstrip("(")
    trunk = first[0] == "0" and first[1] != "0"
    if _OTHER_NUMBER(hit.before[-32:]):
        return False
    near = _PHONE_WORDS(hit.before[-48:]) or (not first.isdigit() and _NUMBER_WORDS(hit.before[-24:]))
    near = near or (not trunk and _SAYS(hit.before[-32:]))
    if not (trunk or near) or _DATE.fullmatch(text) or not _phone(hit):
        return False
    groups = _DIGITS(text)
    count = sum(map(len, groups))
    if len(groups) == 1:
        return near and (9 <= count <= 13 or (_SAYS(hit.before[-32:]) and not _DAY(text)))
    if _IBAN_BEFORE(hit.before) or (len(groups) == 2 and len(groups[0]) == 5 and _ZIP(hit.before[-16:])):
        return False
    if not trunk:
        return 8 <= count <= 14 or (count == 7 and len(groups[0]) == 3)
    if len(groups) > 5 and all(len(g) == 2 for g in groups):  # numbers side by side: no country dials six pairs
        return near
    if [len(g) for g in groups] == [3, 2, 4]:  # a social security number, right or wrong
        return near
    if near:
        return 8 <= count <= 13
    return 9 <= count <= 12 and len(groups[0]) <= 5 and all(len(g) > 1 for g in groups)


def _named(hit: Hit) -> Verdict:
    """Confirm a number that the words behind it call a phone's."""
    span = hit.spans[1] if hit.spans[1][0] >= 0 else hit.spans[2]
    text = hit.text[span[0] : span[1]].decode()
    digits = sum(map(len, _DIGITS(text)))
    return span if 7 <= digits <= 15 and not _DATE.fullmatch(text) and not _GLUED(hit.before[-3:]) else False


_SSN_GLUED: Final = spotter(r"[0-9A-Za-z][-.]$|[-.$#/]$")
#: Numbers that were printed on sample cards: by themselves they are any digits.
_SSN_SAMPLES: Final = frozenset((b"078051120", b"219099999", b"123456789"))


def _ssn(hit: Hit) -> Verdict:
    after = hit.after
    if after == b"-" or (after == b"." and hit.text[hit.end + 1 : hit.end + 2].isdigit()):
        return False
    if hit.text[hit.start + 5 : hit.start + 6] == b"-" and not (
        _ALONE(hit.before[-16:]) or _SSN_WORDS(hit.before[-48:])
    ):
        return False
    return not _SSN_GLUED(hit.before[-2:])


def _ssn_spoken(hit: Hit) -> Verdict:
    if hit.text[hit.start : hit.end] in _SSN_SAMPLES:
        return False
    return bool(_SSN_WORDS(hit.before[-48:])) and _ssn(hit)


def _ssn_written(*marks: tuple[str, str]) -> str:
    """Return the pattern of numbers that can have been given out: an area, a group, a serial, and these between them.

    No part is all zeros, no area is 666 (SSA, "Social Security Number Randomization"); 9 begins ITINs only, with
    certain groups (IRS publication 1915).
    """
    area = r"(?:00[1-9]|0[1-9]\d|[1-578]\d\d|6[0-57-9]\d|66[0-57-9])"
    group, serial = r"(?:0[1-9]|[1-9]\d)", r"(?:[1-9]\d{3}|0[1-9]\d\d|00[1-9]\d|000[1-9])"
    itin = r"9\d\d", r"(?:5\d|6[0-5]|7\d|8[0-8]|9[0-24-9])"
    return "|".join(rf"\b{a}{one}{g}{two}{serial}\b" for one, two in marks for a, g in ((area, group), itin))


#: A social security number without its first mark is written as a ZIP code: ``MA 02110-1301``.
_ALONE: Final = spotter(r"^\s*$|\d[ ,;]{1,2}$")
_ZIP: Final = spotter(r"(?i:\bzip|postal|postcode)|\b[A-Z]{2},? {1,2}$")


def _bitcoin(hit: Hit) -> Verdict:
    value = hit.value
    return base58check(value, size=22 if value[0] == "t" else 21)


def _segwit(hit: Hit) -> Verdict:
    return bech32(hit.value)


def _ripple(hit: Hit) -> Verdict:
    return ripple(hit.value)


#: A trunk 0, an area of two to five digits, and enough after it for nine digits, give or take a few. Behind one of
#: a single digit, marks tell numbers from dates: `01.23.45.67.89`, `03-1234-5678`, but `01.02.2024`.
_TRUNK: Final = "|".join(
    (r"0[1-9] \d\d(?:\d|[ ./-]\d\d){3,18}", r"0[1-9](?:\.\d\d){4}", r"0[1-9](?:-\d\d){4}", r"0[1-9][.-]\d{3,4}[ .-]\d{4}", r"06-\d{8}",
     *(rf"0[1-9]\d{{{area}}}{first}\d\d(?:\d|[{marks}]\d\d){{{more},18}}"
       for area, more in ((1, 2), (2, 2), (3, 1), (4, 1)) for first, marks in (("[ /-]", " /-"), (r"\.", ".")))))  # fmt: skip
#: Letters beyond ASCII, without the blocks of punctuation: \pL would make the automaton a hundred times larger.
_L: Final = r"\x{C0}-\x{24F}\x{370}-\x{1FFF}\x{3040}-\x{D7FF}\x{F900}-\x{FDFF}"
DETECTORS: Final = (
    # Behind a quoted name of a mailbox no blanks: each quotation would wait in a stream.
    Detector("email", rf"(?:\"[A-Za-z0-9_.+-]{{1,40}}\"|(?:\b[A-Za-z0-9_]|[.!#$%&'*+/=?^`{{|}}~{_L}-])[A-Za-z0-9_.!#$%&'*+/=?^`{{|}}~{_L}-]*)"
             rf"@(?:[A-Za-z0-9{_L}](?:[A-Za-z0-9{_L}-]*[A-Za-z0-9{_L}])?\.)+(?:xn--[a-z0-9-]+|[A-Za-z{_L}]{{2,}})",
             group="pii", replacement="[EMAIL]", priority=78, check=_email, hint=rf"@[A-Za-z0-9{_L}-]+\.", aligned=True, core="@", cap=192),
    Detector("credit_card", r"\b(?:4(?:\d{12}|\d{15}|\d{18})|5\d{11,18}|3\d{13,18}|(?:0604|6304|639\d|67\d\d)\d{8}|6\d{12,18}|2[2-7]\d{14}|220\d{13,16}|(?:2131|1\d{3})\d{11}"
             r"|81\d{14,17}|9792\d{12,15})\b|\b(?:[3-6]\d{3}|2[2-7]\d\d|81\d\d|9792)(?:[ -]\d{4}[ -]\d{4}[ -]\d{1,4}(?:[ -]\d{1,3})?|(?:\.\d{4}){3}|(?:  \d{4}){3})\b"
             r"|\b3\d{3}[ .-]\d{6}[ .-]\d{4,5}\b|\b6\d{5}[ -]\d{13}\b",
             group="pii", replacement="[CREDIT_CARD]", priority=74, weight=MEDIUM, check=_card, gate=NUMBER),
    Detector("iban", r"\b[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{1,4}){3,10}|\b[a-z]{2}\d{2}[ -]?(?:[a-z]{4}[ -]?)?\d{4}(?:[ -]?\d{1,4}){2,7}\b", group="pii", replacement="[IBAN]", priority=77, weight=DEAR, check=_iban, gate=NUMBER,
             hint=r"\b[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]){3}|\b[a-z]{2}\d{2}[ -]?(?:[a-z]{4}[ -]?)?\d{4}[ -]?\d"),
    Detector("ssn", _ssn_written(("-", "-"), (r"\.", r"\."), (" ", " "), ("-", ""), ("", "-")), group="pii", replacement="[SSN]",
             priority=73, check=_ssn, gate=NUMBER),
    # The same without marks, or with one, behind a word that says what it is.
    Detector("ssn_spoken", _ssn_written(("", ""), ("[ .]", ""), ("", "[ .]")), group="pii", replacement="[SSN]", priority=73,
             check=_ssn_spoken, after=_SSN, gate=NUMBER),
    Detector("phone", r"(?:\+|\b00)[1-9]\d{0,2}[ .-]?(?:\(0?\d{1,4}\)[ .-]?)?\d{1,12}(?:[ .-]\d{1,8}){0,5}(?:[ ]?(?:x|ext\.?)[ ]?\d{1,6})?\b"
             r"|(?:\b(?:1|001)[ .-])?(?:\([2-9]\d{2}\)[ .-]?|\b[2-9]\d{2}[ .-])\d{3}[ .-]\d{4}(?:[ ]?(?:x|ext\.?)[ ]?\d{1,6})?\b"
            r"|\b8[ -]?\([3-9]\d{2}\)[ ]?\d{3}[ -]\d{2}[ -]\d{2}\b|\(\+[1-9]\d{0,2}\)[ .-]?\d{2,12}(?:[ .-]\d{2,8}){0,4}\b"
            r"|(?:\(\d{3}\)[ .-]?|\b\d{3}[ .-])\d{3}[ .-]\d{4}[ ]?(?:x|ext\.?)[ ]?\d{1,6}\b|\([1-9]\d\)[ ]?\d{4,5}-\d{4}\b",
             group="pii", replacement="[PHONE]", priority=72, weight=MEDIUM, check=_phone, gate=NUMBER),
    Detector("phone_national", rf"\(0[1-9]\d{{0,3}}\)[ .-]?\d{{2,8}}(?:[ .-]\d{{2,8}}){{0,4}}\b|\b(?:{_TRUNK})\b", group="pii",
             replacement="[PHONE]", priority=71, weight=DEAR, check=_national, gate=NUMBER, hint=r"\b0[1-9][\d ./)-]{1,6}\d{2}"),
    # The same without a leading zero, behind a word that says what it is: only there is it looked for.
    Detector("phone_spoken", r"\b\d{1,6}(?:(?:[ ./-]\d{2,8}){2,10}|[ ./-]\d{4,8})\b|\b\d{3,6}[ ./-]\d{2,3}\b|\b\d{7,13}\b|\(\d{1,5}\)[ .-]?(?:\d{2,8}(?:[ ./-]\d{2,8}){1,4}|\d{4,8})\b", group="pii", replacement="[PHONE]", priority=71,
             weight=MEDIUM, check=_national, gate=NUMBER, hint=r"\d[ ./)-]{0,2}\d{2}[ ./-]?\d{2}", after=_NEAR_WORDS),
    # The same before words that say so.
    Detector("phone_named", r"((?:\+\d|\(\d|\b\d)[\d ./()-]{5,17}\d)(?: (?:is|was)(?: still)?| still) (?:my|his|her|our|your|their|the)"
             r"(?: (?:new|old|work|home|office|cell|mobile|phone|fax|direct)){0,2} (?:phone|number|mobile|cell|fax|telephone|line)\b"
             r"|((?:\+\d|\(\d|\b\d)[\d ./()-]{5,17}\d) \((?:mobile|cell|work|home|office|fax|phone|tel|direct|landline)\)",
             group="pii", replacement="[PHONE]", priority=71, weight=MEDIUM, check=_named, gate=NUMBER, hint=r"\d (?:(?:is|was|still) (?:still )?[a-z]|\((?:mobile|cell|work|home|office|fax|phone|tel|direct|landline)\))"),
    Detector("bitcoin", r"\b(?:[13LMDTXmn2][1-9A-HJ-NP-Za-km-z]{25,34}|t[13][1-9A-HJ-NP-Za-km-z]{33})\b", group="pii", replacement="[CRYPTO_ADDRESS]", priority=76,
             weight=DEAR, check=_bitcoin),
    Detector("segwit", r"\b(?:(?:bc1|tb1|ltc1)[02-9ac-hj-np-z]{25,87}|BC1[02-9AC-HJ-NP-Z]{25,87})\b", group="pii",
             replacement="[CRYPTO_ADDRESS]", priority=76, weight=2 * DEAR, check=_segwit),
    Detector("ethereum", r"\b0x[0-9a-fA-F]{40}\b", group="pii", replacement="[CRYPTO_ADDRESS]", priority=76),
    Detector("xrp", r"\br[1-9A-HJ-NP-Za-km-z]{24,34}\b", group="pii", replacement="[CRYPTO_ADDRESS]", priority=76, weight=DEAR, check=_ripple),
    Detector("monero", r"\b[48][0-9AB][1-9A-HJ-NP-Za-km-z]{93}\b", group="pii", replacement="[CRYPTO_ADDRESS]", priority=76),
)  # fmt: skip
