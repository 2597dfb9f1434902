"""Addresses and names of a network that should not leave it."""

from __future__ import annotations

import re
from typing import Final

from policies.redact.checks import ip
from policies.redact.detector import Detector, Hit, Verdict


def _v4(hit: Hit) -> Verdict:
    address, _, bits = hit.value.partition("/")
    if address.count(".") != 3 or any(
        int(part) > 255 or (len(part) > 1 and part[0] == "0") for part in address.split(".")
    ):
        return False
    before, after = hit.before, hit.after
    if re.search(
        rb"[0-9]\.$|[A-Za-z_-]$|\xc2\xa7 ?$|(?i:\b(?:section|chapter|clause|version|release|build|oid):? )$", before
    ) or (after == b"." and hit.text[hit.end + 1 : hit.end + 2].isdigit()):
        return False
    if bits and int(bits) > 32:
        return hit.start, hit.start + len(address)
    return True


def _v6(hit: Hit) -> Verdict:
    text = hit.value
    if len(text) > 64:
        return False
    before = hit.before[-1:]
    if before and (before.isalnum() or before in b"_:."):
        return False
    address, slash, bits = text.partition("/")
    length = len(text.encode())
    if slash and (not bits or int(bits) > 128):
        length = len(address)
    elif not slash:
        trimmed = address.rstrip(".")
        length = len(trimmed)
        address = trimmed
    if hit.after.isalnum() or hit.after in (b":", b"_"):
        return False
    if hit.after == b"." and hit.text[hit.end + 1 : hit.end + 2].isdigit():
        return False
    if address.count(":") < 2 or not (ip(address) or _translated(address)):
        return False
    if hit.before.endswith(b"[") and re.search(rb"[\w\])]\[$", hit.before):  # a slice, items[::2]
        return False
    if address == "::" and not slash and not (hit.before.endswith(b"=") or hit.after in (b"", b"\n")):
        return False
    return hit.start, hit.start + length


def _translated(address: str) -> bool:
    """Take ::ffff:0:a.b.c.d (RFC 2765), whose zero group the standard library does not know at that place."""
    return address.lower().startswith("::ffff:0") and ip(address.rpartition(":")[2])


def _mac(hit: Hit) -> Verdict:
    text = hit.value
    if len(set(re.sub("[^0-9A-Fa-f]", "", text).lower())) == 1:
        return False
    marks = set(re.sub("[0-9A-Fa-f]", "", text))
    return len(marks) == 1 and not (hit.before[-1:] in b":-." and hit.before) and hit.after not in (b":", b"-")


def _host(hit: Hit) -> Verdict:
    _, sign, value = hit.value.partition("=" if "=" in hit.value else ":")
    return hit.after != b"(" and (not sign or bool(re.search(r"[\d.]", value)))


DETECTORS: Final = (
    Detector("ip_address", r"\b\d{1,3}(?:\.\d{1,3}){3,40}(?:/\d{1,3})?\b", group="network", replacement="[IP_ADDRESS]",
             priority=64, check=_v4, hint=r"\d\.\d{1,3}\.\d{1,3}\.\d"),
    Detector("ipv6_address", r"(?:\b[0-9A-Fa-f]{1,4}:|:)(?:[0-9A-Fa-f]{0,4}:){1,60}(?:[0-9A-Fa-f]{0,4}|\d{1,3}(?:\.\d{1,3}){3})(?:%\w{1,16})?(?:/\d{1,4})?",
             group="network", replacement="[IP_ADDRESS]", priority=65, check=_v6, hint=r":[0-9A-Fa-f]{0,4}:"),
    Detector("mac_address", r"\b[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}\b|\b[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\b",
             group="network", replacement="[MAC_ADDRESS]", priority=67, check=_mac),
    Detector("internal_ref", r"(?i)\b(?:server|host|node|instance|machine)[_-]?(?:id|name)[\"']?[=:][ \t]{0,2}[\"']?[\w.-]{2,120}"
             r"|\b(?:[a-z0-9_-]{1,63}\.){1,6}(?:internal|intranet|intra|corp|lan|local|localdomain|svc|private|home\.arpa)\b"
             r"|\binternal-[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){1,6}",
             group="network", replacement="[INTERNAL_REFERENCE]", priority=62, check=_host,
             hint=r"(?i)(?:server|host|node|instance|machine)[_-]?(?:id|name)[\"']?[=:]|\.(?:int|corp|lan|local|svc|private|home)"
                  r"|\binternal-[a-z0-9]"),
    Detector("db_host", r"(?i)\b(?:[a-z0-9]{1,20}[_-])?(?:db|database|mysql|postgres|pg|redis|mongo|oracle)[_-]"
             r"(?:prod|production|stag|staging|stage|dev|test|qa|uat|live|main|primary|replica|master|slave|int)[_-]?\d{0,4}\b"
             r"(?:\.[a-z0-9-]{1,40}){0,5}|\b(?:prod|production|staging|stage|dev|test|qa|uat|live)[_-](?:db|database|mysql|postgres"
             r"|pg|redis|mongo|oracle)[_-]?\d{0,4}\b(?:\.[a-z0-9-]{1,40}){0,5}",
             group="network", replacement="[INTERNAL_REFERENCE]", priority=61),
)  # fmt: skip
