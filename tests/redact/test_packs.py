"""Rule packs in gitleaks' format: a security team brings the rules it has."""

from __future__ import annotations

from pathlib import Path

import pytest

from policies.redact.engine import Engine
from policies.redact.packs import Pack, PackError
from policies.redact.whole import substitute
from tests.redact.helpers import call, chat, policy

PACK = r"""
title = "the house's rules"

[allowlist]
description = "never these"
paths = ['''vendor/''']
regexes = ['''^acme_0000''']

[[rules]]
id = "acme-token"
description = "Acme's token"
regex = '''(?i)\b(acme_[a-z0-9]{8})(?:[\s'"]|$)'''
keywords = ["acme_"]
entropy = 2.0

[[rules.allowlists]]
stopwords = ["example"]

[[rules.allowlists]]
condition = "AND"
regexTarget = "match"
regexes = ['''(?i)"$''']
stopwords = ["test"]

[[rules]]
id = "acme-pair"
regex = '''id=(\w+);key=(\w{6,})'''
secretGroup = 2

[[rules]]
id = "acme-file"
path = '''\.acme$'''
"""


def made(text: str = PACK) -> Pack:
    return Pack("acme.toml", text)


async def test_a_pack_masks_as_its_rules_say(tmp_path: Path) -> None:
    """The secret's group is masked; entropy, keywords and allowlists hold; file rules are skipped with a warning."""
    (tmp_path / "acme.toml").write_text(PACK)
    chosen = policy(str(tmp_path), builtin=[], packs=["acme.toml"])
    for text, expected in {
        "x acme_a1b2c3d4 y": "x [ACME_TOKEN] y",
        "x acme_a1b2c3d45 y": "x acme_a1b2c3d45 y",
        "x acme_aaaaaaaa y": "x acme_aaaaaaaa y",
        "x acme_example1 y": "x acme_example1 y",
        "x acme_0000b1c2 y": "x acme_0000b1c2 y",
        '"acme_testb1c2"': '"acme_testb1c2"',
        "acme_testb1c2 ": "[ACME_TOKEN] ",
        "id=ann;key=s3cret77 z": "id=ann;key=[ACME_PAIR] z",
    }.items():
        asked = call(chat(text))
        await chosen.on_request(asked)
        assert asked.request.body["messages"][0]["content"] == expected, text
    warnings = "\n".join(chosen.warnings())
    assert "acme-file" in warnings and "paths" in warnings


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('id = "acme-pair"', 'id = "acme-token"'), "acme-token.*twice"),
        (("secretGroup = 2", "secretGroup = 3"), "acme-pair.*group 3"),
        (("secretGroup = 2", "verify = true"), "acme-pair.*verify"),
        (("secretGroup = 2", "path = '''x'''"), "acme-pair.*path"),
        (("secretGroup = 2", 'keywords = "x"'), "acme-pair.*keywords"),
        ((r"id=(\w+)", r"(?=x)(\w+)"), "acme-pair.*look-around|acme-pair.*RE2"),
        ((r"id=(\w+);key=(\w{6,})", r"(a*)(b*)"), "acme-pair.*empty"),
        (('condition = "AND"', 'condition = "XOR"'), "acme-token.*XOR"),
        (('regexTarget = "match"', 'regexTarget = "file"'), "acme-token.*file"),
        (('title = "the house\'s rules"', "[extend]\nuseDefault = true"), "extend.*packs"),
        (("secretGroup = 2", "skipReport = true"), "acme-pair.*skipReport"),
        (("secretGroup = 2", "[[rules.required]]\nid = 'acme-token'"), "acme-pair.*required"),
        (("secretGroup = 2", "entropy = inf"), "acme-pair.*entropy"),
        (('stopwords = ["example"]', 'stopwords = [""]'), "acme-token.*empty"),
        (("regexes = ['''^acme_0000''']", 'regexes = ["x"]\ntargetRules = ["acme-pear"]'), "acme-pear.*no such rule"),
        (('stopwords = ["example"]', 'targetRules = ["acme-pair"]'), "acme-token.*targetRules"),
        (('stopwords = ["example"]', 'regexes = ["x*"]'), "acme-token.*every text.*x[*]"),
        (('id = "acme-pair"', 'id = "acme\\npair"'), "printable"),
        (("[[rules]]", "[[rules"), "not TOML"),
    ],
)
def test_what_cannot_be_honoured_is_an_error(change: tuple[str, str], says: str) -> None:
    """A rule that would silently not hold does not load; the error names it."""
    assert change[0] in PACK
    with pytest.raises(PackError, match=f"(?s)acme.toml.*(?:{says})"):
        made(PACK.replace(*change, 1))


def test_all_faults_of_a_pack_are_told_at_once() -> None:
    """Whoever brings a large pack mends it once, not rule by rule."""
    pack = PACK.replace("secretGroup = 2", "path = 'x'") + "[[rules]]\nid = 'acme-more'\nregex = '(?=x)y'\n"
    with pytest.raises(PackError, match=r"(?s)acme-pair.*path.*\n.*acme-more"):
        made(pack)


def test_what_real_packs_hold_loads() -> None:
    """Groups with names, flags inside, both spellings of allowlists and empty fields are the format's."""
    pack = r"""
[[allowlists]]
targetRules = ["one"]
stopwords = ["sample"]
[[rules]]
id = "one"
description = "d"
tags = ["key", "acme"]
regex = '(?i)acme[_-](?P<key>[[:alnum:]]{12})(?-i:Z)\z'
path = ""
keywords = ["ACME"]
[rules.allowlist]
regexTarget = "line"
regexes = ["ignore me"]
[[rules]]
id = "two"
regex = ""
path = "x$"
"""
    chosen = made(pack)
    assert [d.name for d in chosen.detectors] == ["one"] and "two" in chosen.warnings[0]
    found = Engine(chosen.detectors)
    for text, masked in {
        "acme_a1b2c3d4e5f6Z": "acme_[ONE]Z",
        "acme_a1b2c3d4e5f6z": "acme_a1b2c3d4e5f6z",
        "acme_sampleb1c2d3Z": "acme_sampleb1c2d3Z",
        "ignore me: acme_a1b2c3d4e5f6Z": "ignore me: acme_a1b2c3d4e5f6Z",
    }.items():
        assert substitute(text.encode(), found.decide(text.encode(), 0, True)[1]) == masked


def test_a_missing_pack_is_an_error() -> None:
    """A pack that is not there must not be no pack."""
    with pytest.raises(PackError, match="nowhere"):
        policy(packs=["nowhere.toml"])


async def test_rules_of_any_script_and_editor_hold(tmp_path: Path) -> None:
    """A byte order mark, an id without a letter of ASCII, keywords whose case only Unicode knows: all of it holds."""
    rule = "\ufeff[[rules]]\nid = 'ключ'\nregex = '[0-9a-f]{8}'\nkeywords = ['Пароль']\n"
    (tmp_path / "acme.toml").write_text(rule, encoding="utf-8")
    chosen = policy(str(tmp_path), builtin=[], packs=["acme.toml"])
    for text, expected in {"ПАРОЛЬ 1f2e3d4c.": "ПАРОЛЬ [REDACTED].", "hash 1f2e3d4c.": "hash 1f2e3d4c."}.items():
        asked = call(chat(text))
        await chosen.on_request(asked)
        assert asked.request.body["messages"][0]["content"] == expected
