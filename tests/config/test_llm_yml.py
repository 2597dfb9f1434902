"""The repository's own llm.yml: the introduction that every user reads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from proxy.config.document import read
from proxy.config.load import ConfigError, load_text
from proxy.config.model import Config, ServerSettings, StoreSettings, TelemetrySettings, UsageSettings
from proxy.config.schema import schema

FILE = Path(__file__).resolve().parents[2] / "llm.yml"
LINES = FILE.read_text().splitlines()
SWITCH = re.compile(r"( *)#(?=[^\s#])")
ENVIRON = {
    "OPENAI_API_KEY": "sk-0123456789", "ANTHROPIC_API_KEY": "sk-ant-0123456789", "AZURE_OPENAI_API_KEY": "az-0123456789",
    "GEMINI_API_KEY": "g-0123456789", "OPS_KEY": "lsk_0123456789abcdef", "LLM_SIDECAR_SECRET": "0123456789abcdef",
    "BUDGET_WEBHOOK": "https://example.com/hook", "OPENAI_ORG_ID": "org-1",
}  # fmt: skip


def blocks() -> list[list[int]]:
    """Return the switched-off blocks as line numbers: a line and those that are indented below it."""
    found: list[list[int]] = []
    current: list[int] | None = None
    indent = 0
    for number, line in enumerate(LINES):
        match = SWITCH.match(line)
        if match is None:
            if line.strip() and not line.lstrip().startswith("# "):
                current = None  # a line that is in force
            continue
        if current is not None and len(match[1]) > indent:
            current.append(number)
            continue
        current = [number]
        indent = len(match[1])
        found.append(current)
    return found


BLOCKS = blocks()


def switched(*numbers: int) -> str:
    """Return the file with these blocks switched on."""
    on = {line for number in numbers for line in BLOCKS[number]}
    return "\n".join(SWITCH.sub(r"\1", line, count=1) if i in on else line for i, line in enumerate(LINES)) + "\n"


def load(text: str, **environ: str) -> Config:
    return load_text(text, environ, str(FILE.parent))


def test_there_are_many_blocks() -> None:
    """The way that blocks are found finds them."""
    assert len(BLOCKS) >= 39


@pytest.mark.parametrize("number", range(len(BLOCKS)), ids=lambda n: LINES[BLOCKS[n][0]].strip()[1:40])
def test_each_block_loads_switched_on(number: int) -> None:
    """Whoever takes the `#` of one block away has a file that serves; what a team's values need is switched on too."""
    try:
        load(switched(number), **ENVIRON)
    except ConfigError as error:
        needed = {match for p in error.problems for match in re.findall(r"needs the policy `(\w+)`", str(p))}
        assert needed, error
        others = [n for n, lines in enumerate(BLOCKS) if any(f"#- {name}" in LINES[lines[0]] for name in needed)]
        load(switched(number, *others), **ENVIRON)


def test_all_blocks_load_together() -> None:
    """Nothing contradicts anything else, no warning is left, and the schema agrees."""
    text = switched(*range(len(BLOCKS)))
    config = load(text, **ENVIRON)
    assert config.default_provider == "openai"
    assert not config.warnings
    assert not [note for note in config.notes if "absent" in note]
    jsonschema.Draft202012Validator(schema()).validate(read(text, "llm.yml").tree)


def test_it_serves_with_a_key_and_without_any() -> None:
    """With OPENAI_API_KEY it is OpenAI's; with nothing at all the echo answers."""
    assert load("\n".join(LINES), OPENAI_API_KEY="sk-0123456789").default_provider == "openai"
    config = load("\n".join(LINES))
    assert config.default_provider == "echo"
    assert str(config.server.listen) == "127.0.0.1:8080"


def test_another_server_with_openais_api_needs_two_variables() -> None:
    """`make run` points it at the demo model this way."""
    config = load("\n".join(LINES), OPENAI_API_KEY="demo-key", OPENAI_BASE_URL="http://127.0.0.1:9999/v1")
    assert config.providers["openai"].settings.base_url == "http://127.0.0.1:9999/v1"


def test_the_active_part_is_short() -> None:
    """An introduction does not begin with everything."""
    active = [line for line in LINES if line.strip() and not line.lstrip().startswith("#")]
    assert len(active) < 40


def test_no_line_is_wide() -> None:
    """It reads well in a terminal and in a review."""
    assert max(map(len, LINES)) <= 118


DEFAULTS = [
    ("server", ServerSettings(), ()), ("store", StoreSettings(), ()), ("usage", UsageSettings(), ()),
    ("telemetry", TelemetrySettings(), ()),
]  # fmt: skip


@pytest.mark.parametrize(("section", "defaults", "_"), DEFAULTS, ids=lambda value: str(value)[:12])
def test_what_is_shown_as_default_is_the_default(section: str, defaults: Any, _: Any) -> None:
    """Switching on what shows a default changes nothing, and every setting of these sections is shown."""
    config = load(switched(*range(len(BLOCKS))), **ENVIRON)
    found = getattr(config, section)
    for name in type(defaults).model_fields:
        assert name in found.model_fields_set, f"{section}.{name} is not in llm.yml"
        if not _no_default(name):
            assert getattr(found, name) == getattr(defaults, name), f"{section}.{name}"


def test_the_openai_entry_shows_every_setting_with_its_default() -> None:
    """What a provider can be told stands there once, in place."""
    found = load(switched(*range(len(BLOCKS))), **ENVIRON).providers["openai"].settings
    defaults = type(found)()
    for name in type(found).model_fields:
        if name in ("kind", "api_key", "model", "base_url"):
            continue
        assert name in found.model_fields_set, f"providers.openai.{name} is not in llm.yml"
        if not _no_default(name):
            assert getattr(found, name) == getattr(defaults, name), name


def _no_default(name: str) -> bool:
    """Return whether the file says of a setting that it has no default."""
    for i, line in enumerate(LINES):
        if re.match(rf" *#{name}:", line):
            before = [LINES[j] for j in range(max(0, i - 2), i) if LINES[j].lstrip().startswith("# ")]
            return "no default" in " ".join(before[-1:])
    return False
