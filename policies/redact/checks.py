"""What makes a candidate real: checksums, alphabets, randomness. Pure functions on strings."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable
from socket import AF_INET, AF_INET6, inet_pton
from string import ascii_lowercase, ascii_uppercase, digits
from typing import Final

from re2 import _re2

from policies.redact.detector import options

_ANYWHERE: Final = _re2.RE2.Anchor.UNANCHORED


def spotter(pattern: str) -> Callable[[bytes], bool]:
    """Return what tells whether ``pattern`` occurs in a text: RE2, since these run for every candidate."""
    compiled = _re2.RE2(pattern.encode(), options(captures=False))
    assert compiled.ok(), compiled.error()
    match = compiled.Match

    def spotted(text: bytes) -> bool:
        return bool(match(_ANYWHERE, text, 0, len(text))[0][0] >= 0)

    return spotted


def entropy(text: str) -> float:
    """Return Shannon's entropy of ``text`` in bits a character."""
    size = len(text)
    if not size:
        return 0.0
    counts = Counter(text).values()
    if size >= len(_BITS):
        return -sum(n / size * math.log2(n / size) for n in counts)
    return math.log2(size) - sum(map(_BITS.__getitem__, counts)) / size


#: n times its logarithm.
_BITS: Final = [0.0, *(n * math.log2(n) for n in range(1, 512))]


def richer(text: str, bits: float) -> bool:
    """Tell whether :func:`entropy` of ``text`` is more than ``bits``: nearly always seen by how many characters differ."""
    size, kinds = len(text), len(set(text))
    if not 1 < kinds < len(_BITS) > size:
        return entropy(text) > bits
    # The least that so many kinds can come to: all but one occur once.
    if math.log2(size) - _BITS[size - kinds + 1] / size > bits + 1e-9:
        return True
    return math.log2(kinds) > bits - 1e-9 and entropy(text) > bits


def repetitive(text: str) -> bool:
    """Tell whether ``text`` repeats itself: ``abcd1234abcd1234…`` or ``xxxxxxxx`` is nobody's key."""
    size, kinds = len(text), len(set(text))
    if size < 8:
        return kinds == 1
    most = (size - 2) * 3
    if (kinds - 2) * 5 >= most:  # so many characters begin as many different threes: no need to count those
        return False
    return kinds * 6 < size or len({*zip(text, text[1:], text[2:])}) * 5 < most  # noqa: B905


#: What each byte is: ``d`` a digit, ``u`` an upper, ``l`` a lower case letter of ASCII, ``o`` anything else.
KINDS: Final = bytes(
    ord("d" if chr(b) in digits else "u" if chr(b) in ascii_uppercase else "l" if chr(b) in ascii_lowercase else "o")
    for b in range(256)
)


def classes(text: str) -> tuple[int, int, int, int]:
    """Return how many lower case letters, upper case letters, digits and other characters ``text`` has."""
    count = text.encode("utf-8", "replace").translate(KINDS).count
    lower, upper, number = count(b"l"), count(b"u"), count(b"d")
    return lower, upper, number, len(text) - lower - upper - number


def luhn(number: str) -> bool:
    """Tell whether the check digit is right (ISO/IEC 7812-1, annex B)."""
    return (sum(map(int, number[-1::-2])) + sum(map(int, number[-2::-2].translate(_DOUBLED)))) % 10 == 0


_DOUBLED: Final = str.maketrans("0123456789", "0246813579")
#: Issuer prefixes and the lengths they use (ISO/IEC 7812; the networks' own tables).
_ISSUERS: Final = (
    (re.compile("4"), (13, 16, 19)),
    (re.compile("5[0-9]"), (16, 12, 13, 14, 15, 17, 18, 19)),
    (re.compile("2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)"), (16,)),
    (re.compile("3[47]"), (15,)),
    (re.compile("3(?:0[0-59]|[689])"), (14, 16, 17, 18, 19)),
    (re.compile("35"), (16, 17, 18, 19)),
    (re.compile("6"), (16, 13, 14, 15, 17, 18, 19)),
    (re.compile("0604|6304|639|67"), (12,)),
    (re.compile("2131|1800|1[0-9]"), (15,)),
    (re.compile("81|220[0-4]|9792"), (16, 17, 18, 19)),
)


def card(number: str) -> bool:
    """Tell whether ``number`` is a payment card's: a known issuer, its length, and the check digit."""
    size = len(number)
    if not luhn(number) or len(set(number)) < 2:
        return False
    return any(size in sizes and issuer.match(number) for issuer, sizes in _ISSUERS)


#: Lengths from the SWIFT IBAN registry.
IBAN_LENGTHS: Final = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BI": 27, "BR": 29,
    "BY": 28, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DJ": 27, "DK": 18, "DO": 28, "EE": 20, "EG": 29,
    "ES": 24, "FI": 18, "FK": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28,
    "HN": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20,
    "LB": 28, "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19,
    "MN": 20, "MR": 27, "MT": 31, "MU": 30, "NI": 28, "NL": 18, "NO": 15, "OM": 23, "PK": 24, "PL": 28, "PS": 29,
    "PT": 25, "QA": 29, "RO": 24, "RS": 22, "RU": 33, "SA": 24, "SC": 31, "SD": 18, "SE": 24, "SI": 19, "SK": 24,
    "SM": 27, "SO": 23, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20,
    "YE": 30,
}  # fmt: skip


def iban(text: str) -> bool:
    """Tell whether ``text`` (no separators) has its country's length and the check digits of ISO 13616."""
    if IBAN_LENGTHS.get(text[:2]) != len(text):
        return False
    return int("".join([str(int(c, 36)) for c in text[4:] + text[:4]])) % 97 == 1


_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_RIPPLE58: Final = "rpshnaf39wBUDNEGHJKLM4PQRST7VWXYZ2bcdeCg65jkm8oFqi1tuvAxyz"


def base58check(text: str, alphabet: str = _BASE58, size: int = 21) -> bool:
    """Tell whether ``text`` is ``size`` bytes in base 58 with the right checksum (Bitcoin and its kin: 21)."""
    number = 0
    for char in text:
        digit = alphabet.find(char)
        if digit < 0:
            return False
        number = number * 58 + digit
    try:
        raw = number.to_bytes(size + 4, "big")
    except OverflowError:
        return False
    return hashlib.sha256(hashlib.sha256(raw[:size]).digest()).digest()[:4] == raw[size:]


def ripple(text: str) -> bool:
    """Tell whether ``text`` is an XRP Ledger address."""
    return base58check(text, _RIPPLE58)


_BECH32: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def bech32(text: str) -> bool:
    """Tell whether ``text`` is a segwit address with the checksum of BIP 173 or BIP 350."""
    text = text.lower()
    prefix, one, data = text.rpartition("1")
    if not one or any(c not in _BECH32 for c in data):
        return False
    values = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix] + [_BECH32.index(c) for c in data]
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for i, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            if top >> i & 1:
                check ^= generator
    return check in (1, 0x2BC830A3)


def json_segment(segment: str) -> bool:
    """Tell whether a JWT's segment decodes to a JSON object (RFC 7515)."""
    if len(segment) % 4 == 1:
        return False
    try:
        return isinstance(json.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))), dict)
    except (binascii.Error, ValueError, RecursionError):
        return False


def ip(text: str) -> bool:
    """Tell whether ``text`` is an IPv4 or IPv6 address, mixed notation and zone included."""
    try:
        # The operating system's reader: the standard library's own takes ten times as long.
        inet_pton(AF_INET6 if ":" in text else AF_INET, text.partition("%")[0])
    except OSError:
        return False
    return True
