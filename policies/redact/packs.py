"""Rule packs in the TOML format that the gitleaks project made common.

A rule has ``id``, ``regex`` (Go's RE2, which is ours), ``secretGroup``, ``keywords``, ``entropy`` and
``allowlists``. What belongs to files and commits has no meaning in a prompt: rules that only know a path, and the
paths and commits of allowlists, are skipped with a warning; anything else that cannot be honoured is an error.
Format: https://github.com/gitleaks/gitleaks#configuration.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from typing import Any, Final

from re2 import _re2

from policies.redact.checks import entropy
from policies.redact.config import bounded_detector
from policies.redact.detector import Detector, Hit, Verdict, options
from policies.redact.syntax import PatternError

_TOP: Final = frozenset(("title", "description", "minVersion", "rules", "allowlist", "allowlists"))
_RULE: Final = frozenset(
    ("id", "description", "regex", "path", "secretGroup", "entropy", "keywords", "tags", "allowlist", "allowlists")
)
_ALLOW: Final = frozenset(
    ("id", "description", "condition", "regexTarget", "regexes", "stopwords", "paths", "commits", "targetRules")
)
#: Characters of an id: it is a metric's label.
_LONGEST: Final = 128
#: What matches all of these matches everything.
_TEXTS: Final = (b"", b"\n", b"q", b"7-Z ")
#: Bits that a character can have.
_MOST: Final = 8
_ANYWHERE: Final = _re2.RE2.Anchor.UNANCHORED
Allowed = Callable[[Hit, str], bool]


class PackError(ValueError):
    """A pack cannot be loaded; the message names the file and the rule."""


class Pack:
    """The rules of one file: ``detectors``, and ``warnings`` about what was left out."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.detectors: list[Detector] = []
        self.warnings: list[str] = []
        try:
            data = tomllib.loads(text.removeprefix("\ufeff"))  # some editors put a mark there
        except tomllib.TOMLDecodeError as error:
            raise PackError(f"the rule pack {name} is not TOML: {error}") from None
        for key in data:
            if key not in _TOP:
                why = "list the files it names in `packs`" if key == "extend" else "take it out"
                raise PackError(f"the rule pack {name}: `{key}` cannot be honoured here; {why}")
        everywhere = [self._allowlist(raw, "the global allowlist") for raw in _listed(data)]
        rules = data.get("rules", [])
        if not isinstance(rules, list) or not rules:
            raise PackError(f"the rule pack {name} has no [[rules]]")
        seen: set[str] = set()
        faults: list[str] = []
        for raw in rules:
            rule = raw.get("id") if isinstance(raw, dict) else None
            if not isinstance(rule, str) or not rule:
                raise PackError(f"the rule pack {name} has a rule without an `id`")
            try:
                if rule in seen:
                    raise self._bad(rule, "it is there twice")
                if len(rule) > _LONGEST or not rule.isprintable():
                    raise self._bad(
                        rule[:_LONGEST], f"an `id` has at most {_LONGEST} characters, all of them printable"
                    )
                self._rule(rule, raw, [(targets, allow) for targets, allow in everywhere if allow is not None])
            except PackError as error:  # all of them at once: nobody wants to mend a pack rule by rule
                faults.append(str(error))
            seen.add(rule)
        faults += [
            str(self._bad(target, "an allowlist's `targetRules` names it, but there is no such rule"))
            for targets, _ in everywhere
            for target in targets
            if target not in seen
        ]
        if faults:
            raise PackError("\n".join(faults))

    def _bad(self, rule: str, why: str) -> PackError:
        return PackError(f"the rule pack {self.name}, rule `{rule}`: {why}")

    def _only(self, table: Mapping[str, Any], known: frozenset[str], where: str) -> None:
        for key in table:
            if key not in known:
                raise self._bad(where, f"`{key}` cannot be honoured here; take it out")

    def _rule(self, rule: str, raw: dict[str, Any], everywhere: list[tuple[tuple[str, ...], Allowed]]) -> None:
        self._only(raw, _RULE, rule)
        if not raw.get("regex"):
            if not raw.get("path"):
                raise self._bad(rule, "it has no `regex`")
            self.warnings.append(f"{self.name}: the rule `{rule}` looks at paths only and was skipped")
            return
        if raw.get("path"):
            raise self._bad(
                rule,
                "it is bound to a `path`, which a prompt does not have; take out the path (it then holds everywhere) or the rule",
            )
        wanted = raw.get("entropy", 0)
        group = raw.get("secretGroup", 0)
        keywords = raw.get("keywords", [])
        if not isinstance(raw["regex"], str):
            raise self._bad(rule, "`regex` must be a string")
        if isinstance(wanted, bool) or not isinstance(wanted, int | float) or not 0 <= wanted <= _MOST:
            raise self._bad(rule, f"`entropy` must be a number from 0 to {_MOST}")
        if type(group) is not int:
            raise self._bad(rule, "`secretGroup` must be a whole number")
        if not _strings(keywords):
            raise self._bad(rule, "`keywords` must be a list of strings")
        allows = [
            allow for _, allow in (self._allowlist(one, f"the rule `{rule}`", rule) for one in _listed(raw)) if allow
        ]
        allows += [allow for targets, allow in everywhere if not targets or rule in targets]
        check = _Check(float(wanted), group, [k.lower() for k in keywords], allows)
        word = "[" + (re.sub("[^A-Z0-9]+", "_", rule.upper()).strip("_") or "REDACTED") + "]"
        try:
            detector = bounded_detector(rule, raw["regex"], None, group="packs", replacement=word, priority=50,
                                        secret=group, check=check)  # fmt: skip
        except PatternError as error:
            raise self._bad(rule, f"its regex cannot be used: {error}") from None
        self.detectors.append(detector)

    def _allowlist(self, raw: Any, where: str, rule: str = "") -> tuple[tuple[str, ...], Allowed | None]:
        name = rule or "allowlist"
        if not isinstance(raw, dict):
            raise self._bad(name, "an allowlist must be a table")
        self._only(raw, _ALLOW - {"targetRules"} if rule else _ALLOW, name)
        for key in ("paths", "commits"):
            if raw.get(key):
                self.warnings.append(
                    f"{self.name}: the {key} in the allowlist of {where} mean nothing in a prompt and were skipped"
                )
        condition = str(raw.get("condition", "OR")).upper()
        if condition not in ("OR", "||", "AND", "&&"):
            raise self._bad(name, f"`condition` must be AND or OR, not {condition}")
        target = raw.get("regexTarget", "secret") or "secret"
        if target not in ("secret", "match", "line"):
            raise self._bad(name, f"`regexTarget` must be secret, match or line, not {target}")
        regexes, stopwords, targets = (raw.get(key, []) for key in ("regexes", "stopwords", "targetRules"))
        if not (_strings(regexes) and _strings(stopwords) and _strings(targets)):
            raise self._bad(name, "`regexes`, `stopwords` and `targetRules` must be lists of strings")
        if "" in regexes or "" in stopwords:
            raise self._bad(name, "an allowlist holds an empty string, which would allow everything")
        every = condition in ("AND", "&&")
        if every and (raw.get("paths") or raw.get("commits")):
            return tuple(targets), None  # it could never apply
        if not regexes and not stopwords:
            return tuple(targets), None
        matchers = []
        for regex in regexes:
            compiled = _re2.RE2(regex.encode(), options(captures=False))
            if not compiled.ok():
                raise self._bad(name, f"an allowlist's regex cannot be used: {regex}")
            if all(compiled.Match(_ANYWHERE, text, 0, len(text))[0][0] >= 0 for text in _TEXTS):
                raise self._bad(name, f"an allowlist's regex matches every text, which would allow everything: {regex}")
            matchers.append(compiled.Match)
        return tuple(targets), _allow(matchers, [word.lower() for word in stopwords], target, every)


class _Check:
    """Confirm a rule's match as the format says: keywords, then entropy, then allowlists."""

    __slots__ = ("_allows", "_cased", "_entropy", "_group", "_keywords")

    def __init__(self, wanted: float, group: int, keywords: list[str], allows: list[Allowed]) -> None:
        self._entropy = wanted
        self._group = group
        self._keywords = [keyword.encode() for keyword in keywords]
        #: Bytes know the case of ASCII only.
        self._cased = not all(map(str.isascii, keywords))
        self._allows = allows

    def __call__(self, hit: Hit) -> Verdict:
        if self._keywords:
            # In a file a keyword may stand anywhere; in a stream it must stand in the match or shortly before it.
            around = (hit.before + hit.text[hit.start : hit.end]).lower()
            if self._cased:
                around = around.decode("utf-8", "replace").lower().encode()
            if not any(keyword in around for keyword in self._keywords):
                return False
        span = hit.spans[self._group]
        if self._group == 0:  # without `secretGroup` the first group that matched is the secret
            span = next((s for s in hit.spans[1:] if s[0] >= 0 and s[1] > s[0]), hit.spans[0])
        if span[1] <= span[0]:
            return False
        secret = hit.text[span[0] : span[1]].decode("utf-8", "replace")
        if self._entropy and entropy(secret) <= self._entropy:
            return False
        return False if any(allow(hit, secret) for allow in self._allows) else span


def _allow(matchers: list[Any], stopwords: list[str], target: str, every: bool) -> Allowed:
    def allowed(hit: Hit, secret: str) -> bool:
        if target == "secret":
            text = secret.encode()
        else:
            text = hit.text[hit.start : hit.end]
            if target == "line":  # as much of the line as a stream has seen
                text = hit.before.rpartition(b"\n")[2] + text
        lowered = secret.lower()
        verdicts = []
        if matchers:
            verdicts.append(any(match(_ANYWHERE, text, 0, len(text))[0][0] >= 0 for match in matchers))
        if stopwords:
            verdicts.append(any(word in lowered for word in stopwords))
        return all(verdicts) if every else any(verdicts)

    return allowed


def _listed(table: Mapping[str, Any]) -> list[Any]:
    single, several = table.get("allowlist"), table.get("allowlists", [])
    found = [single] if single is not None else []
    return found + (several if isinstance(several, list) else [several])


def _strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
