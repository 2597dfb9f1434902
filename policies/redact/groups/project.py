"""Identifiers of the house's own systems, as the design document has them."""

from __future__ import annotations

import re
from typing import Final

from policies.redact.detector import Detector, Hit, Verdict

_UUID: Final = "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"


def _has_digit(hit: Hit) -> Verdict:
    return bool(re.search(r"\d", hit.value))


def _user(hit: Hit) -> Verdict:
    for n in (1, 2):
        if hit.spans[n][0] >= 0:
            value = hit.group(n)
            if value.lower() in ("none", "null", "str", "int", "string", "true", "false") or not re.search(
                r"\d", value
            ):
                return False
            quoted = n == 1
            return hit.spans[1] if quoted else (hit.start, hit.spans[2][0] + len(value.rstrip(",;)]}.").encode()))
    return False


DETECTORS: Final = (
    Detector("team_secret", r"\bteam_[A-Za-z0-9]{32}\b", group="project", replacement="[TEAM_SECRET]", priority=75),
    Detector("team_id", rf"\bteam_(?:{_UUID}|[A-Za-z0-9]{{1,31}})\b", group="project", replacement="[TEAM_ID]", priority=60,
             check=_has_digit),
    Detector("sprint_ref", r"(?i)\bsprint_\d{4}_q[1-4](?:_[a-z0-9]{1,16}){0,4}\b", group="project",
             replacement="[SPRINT_REFERENCE]", priority=60, hint=r"(?i)\bsprint_\d"),
    Detector("user_id", r"(?i)\buser[_-]?id[\"']?[ \t]{0,2}[:=][ \t]{0,2}(?:[\"']([\w|@.:-]{2,128})|([\w|@.:-]{2,128}))",
             group="project", replacement="[USER_ID]", priority=60, check=_user, hint=r"(?i)\buser[_-]?id[\"']?[ \t]{0,2}[:=]"),
)  # fmt: skip
