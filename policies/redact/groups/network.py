"""Addresses and names of a network that should not leave it."""

from __future__ import annotations

import re
from typing import Final

from policies.redact.checks import ip, spotter
from policies.redact.detector import MEDIUM, Detector, Hit, Verdict
from policies.redact.gates import NUMBER, SIGN

_NO_ADDRESS: Final = spotter(
    r"[0-9]\.$|[A-Za-z_-]$|\b[A-Z][A-Za-z]+/$|\x{a7} ?$|(?i:\b(?:section|chapter|clause|version|release|build|oid):? )$"
)


def _v4(hit: Hit) -> Verdict:
    if (hit.after == b"." and hit.text[hit.end + 1 : hit.end + 2].isdigit()) or _NO_ADDRESS(hit.before[-16:]):
        return False
    address, _, bits = hit.value.partition("/")
    if bits and int(bits) > 32:
        return hit.start, hit.start + len(address)
    return True


def _v6(hit: Hit) -> Verdict:
    text = hit.value
    if len(text) > 64:
        return False
    before = hit.before[-1:]
    if before and (before.isalnum() or before in b"_:.$"):
        return False
    address, slash, bits = text.partition("/")
    length = len(text.encode())
    if slash and (not bits or int(bits) > 128):
        length = len(address)
    elif not slash:
        trimmed = address.rstrip(".")
        length = len(trimmed)
        address = trimmed
    beyond = hit.text[hit.end + 1 : hit.end + 2]
    if hit.after.isalnum() or hit.after == b"_" or (hit.after == b":" and (beyond.isalnum() or beyond in (b":", b""))):
        return False
    if hit.after == b"." and beyond.isdigit():
        return False
    if address.count(":") < 2 or not (ip(address) or _translated(address)):
        return False
    if hit.before.endswith(b"[") and re.search(rb"[\w\])]\[$", hit.before):  # a slice, items[::2]
        return False
    line = hit.before.rpartition(b"\n")[2]
    if address == "::" and not slash and not (_NOWHERE(line) or (not hit.after and _WORDS(line))):
        return False
    return hit.start, hit.start + length


#: Before ``::``, which ends a line of reStructuredText, too.
_WORDS: Final = spotter(r"^[A-Za-z ]{1,24}[ :]$")
_NOWHERE: Final = spotter(r"(?i)^[ \t]*$|=$|\b(?:ip|ipv6|addr|address|host|bind|listen|on|is)[ :=]+$")


def _translated(address: str) -> bool:
    """Take ::ffff:0:a.b.c.d (RFC 2765), whose zero group the standard library does not know at that place."""
    return address.lower().startswith("::ffff:0") and ip(address.rpartition(":")[2])


def _mac(hit: Hit) -> Verdict:
    if hit.after in (b":", b"-") or (hit.before and hit.before[-1] in b":-.*"):
        return False
    return len(set(hit.value.lower())) > 2  # all digits alike, and the mark


def _mac_spoken(hit: Hit) -> Verdict:
    digits = hit.value.lower().translate(_MARKS)
    return len(set(digits)) > 2 and not digits.isalpha()


_MARKS: Final = str.maketrans("", "", " :.-")


def _host(hit: Hit) -> Verdict:
    _, sign, value = hit.value.partition("=" if "=" in hit.value else ":")
    return (
        hit.after != b"("
        and not hit.value.startswith(("self.", "this."))
        and (not sign or bool(re.search(r"[\d.]", value)))
    )


_MAC: Final = r"(?i:\b(?:mac(?:[ _-]?addr(?:ess)?)?|hw[ _-]?addr(?:ess)?|bssid|ether(?:net)?|physical[ _]addr(?:ess)?))[\"'`]?[ \t]{0,2}(?:is[ :]|of[ :]|[:=>#-]|[ \t])[ \t]{0,2}[\"'`]?"
_OCTET: Final = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_GROUP: Final = "[0-9A-Fa-f]{1,4}"
_QUAD: Final = r"\d{1,3}(?:\.\d{1,3}){3}"
_ZONE: Final = r"(?:%\w{1,16})?(?:/\d{1,4})?"
DETECTORS: Final = (
    Detector("ip_address", rf"\b{_OCTET}(?:\.{_OCTET}){{3}}(?:/\d{{1,3}})?\b", group="network", replacement="[IP_ADDRESS]",
             priority=64, check=_v4, gate=NUMBER, hint=r"\d\.\d{1,3}\.\d{1,3}\.\d"),
    # Eight groups, or a gap of zeros; times of day have neither. A longer row is taken whole, to be turned down once.
    Detector("ipv6_address", rf"(?:\b{_GROUP}(?::{_GROUP})*|\B)::(?:(?:{_GROUP}:)*(?:{_QUAD}|{_GROUP}\b)|\B){_ZONE}"
             rf"|\b(?:{_GROUP}:){{6}}(?:{_QUAD}|(?:{_GROUP}:)+{_GROUP}\b){_ZONE}",
             group="network", replacement="[IP_ADDRESS]", priority=65, cap=128, weight=MEDIUM, check=_v6, hint=r"::|:[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]{1,4}:"),
    Detector("mac_address", r"\b[0-9A-Fa-f]{2}(?:(?::[0-9A-Fa-f]{2}){5}|(?:-[0-9A-Fa-f]{2}){5})\b|\b[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\b",
             group="network", replacement="[MAC_ADDRESS]", priority=67, weight=MEDIUM, check=_mac, gate=SIGN,
             hint=r":[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}:|-[0-9A-Fa-f]{2}-[0-9A-Fa-f]{2}-|\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}"),
    # The same without marks, in halves or between blanks, behind a word that says what it is.
    Detector("mac_spoken", rf"{_MAC}([0-9A-Fa-f]{{12}}|[0-9A-Fa-f]{{6}}[:.-][0-9A-Fa-f]{{6}}|(?:\d[0-9A-Fa-f]|[A-Fa-f]\d)(?: [0-9A-Fa-f]{{2}}){{5}}"
             r"|[0-9A-Fa-f]{2} (?:\d[0-9A-Fa-f]|[A-Fa-f]\d)(?: [0-9A-Fa-f]{2}){4})\b",
             group="network", replacement="[MAC_ADDRESS]", priority=66, secret=1, weight=MEDIUM, check=_mac_spoken,
             hint=rf"{_MAC}[0-9A-Fa-f]{{2}}"),
    Detector("internal_ref", r"(?i)\b(?:server|host|node|instance|machine)[_-]?(?:id|name)[\"']?[=:][ \t]{0,2}[\"']?[\w.-]{2,}"
             r"|\b(?:[a-z0-9_-]+\.)+(?:internal|intranet|intra|corp|lan|local|localdomain|svc|private|home\.arpa)\b"
             r"|\binternal-[a-z0-9-]+(?:\.[a-z0-9-]+)+",
             group="network", replacement="[INTERNAL_REFERENCE]", priority=62, check=_host, cap=320, gate=SIGN,
             hint=r"(?i)(?:er|st|de|ce|ne)[_-]?(?:id|name)[\"']?[=:]|\.(?:int|corp|lan|local|svc|private|home)"
                  r"|\binternal-[a-z0-9-]"),
    Detector("db_host", r"(?i)\b(?:[a-z0-9]{1,20}[_-])?(?:db|database|mysql|postgres|pg|redis|mongo|oracle)[_-]"
             r"(?:prod|production|stag|staging|stage|dev|test|qa|uat|live|main|primary|replica|master|slave|int)[_-]?\d{0,4}\b"
             r"(?:\.[a-z0-9-]+)*|\b(?:prod|production|staging|stage|dev|test|qa|uat|live)[_-](?:db|database|mysql|postgres"
             r"|pg|redis|mongo|oracle)[_-]?\d{0,4}\b(?:\.[a-z0-9-]+)*",
             group="network", replacement="[INTERNAL_REFERENCE]", priority=61, cap=320, gate=SIGN,
             hint=r"(?i)[belsgo][_-](?:prod|stag|dev|test|qa|uat|live|main|primary|replica|master|slave|int)"
                  r"|[dnegtav][_-](?:db|database|mysql|postgres|pg|redis|mongo|oracle)"),
)  # fmt: skip
