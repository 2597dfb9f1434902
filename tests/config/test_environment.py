"""The environment alone is enough, variable by variable (contract 1)."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from proxy.config.environment import VARIABLES
from proxy.config.load import ConfigError, load
from proxy.config.model import Config

#: The response cache is a policy of a later step.
needs_cache = pytest.mark.skipif(find_spec("policies.cache") is None, reason="policies/cache.py is not there yet")

KEY = {"OPENAI_API_KEY": "sk-0123456789"}


def loaded(environ: dict[str, str], folder: Path) -> Config:
    return load(None, environ, str(folder))


def key_of(config: Config, provider: str) -> str:
    (key,) = config.providers[provider].settings.api_key
    return key.get_secret_value()


def setting(provider: str, name: str) -> Callable[[Config], Any]:
    return lambda config: getattr(config.providers[provider].settings, name)


def policy(name: str, path: str) -> Callable[[Config], Any]:
    def get(config: Config) -> Any:
        entry = config.policy(name)
        assert entry is not None, f"{name} is not on"
        value: Any = entry.config
        for step in path.split("."):
            value = value[int(step)] if step.isdigit() else getattr(value, step)
        return value

    return get


AZURE = {
    "AZURE_OPENAI_API_KEY": "az-0123456789",
    "AZURE_OPENAI_ENDPOINT": "https://my.openai.azure.com",
    "AZURE_OPENAI_DEPLOYMENT": "my-deployment",
    "AZURE_OPENAI_API_VERSION": "2024-06-01",
}
ANTHROPIC = {"ANTHROPIC_API_KEY": "sk-ant-0123456789"}

TABLE: dict[str, tuple[dict[str, str], Callable[[Config], Any], Any]] = {
    "LLM_PROVIDER": ({**KEY, **ANTHROPIC, "LLM_PROVIDER": "anthropic"}, lambda c: c.default_provider, "anthropic"),
    "LLM_API_KEY": ({"LLM_PROVIDER": "gemini", "LLM_API_KEY": "g-0123456789"}, lambda c: key_of(c, "gemini"), "g-0123456789"),
    "LLM_MODEL": ({**KEY, "LLM_MODEL": "gpt-4o"}, setting("openai", "model"), "gpt-4o"),
    "LLM_BASE_URL": (
        {"LLM_PROVIDER": "other", "LLM_BASE_URL": "http://127.0.0.1:9999/v1"},
        setting("other", "base_url"),
        "http://127.0.0.1:9999/v1",
    ),
    "LLM_MAX_TOKENS": ({**KEY, "LLM_MAX_TOKENS": "8192"}, setting("openai", "max_tokens"), 8192),
    "LLM_TEMPERATURE": ({**KEY, "LLM_TEMPERATURE": "0.7"}, setting("openai", "temperature"), 0.7),
    "LLM_TIMEOUT": ({**KEY, "LLM_TIMEOUT": "45"}, setting("openai", "timeout"), 45.0),
    "OPENAI_API_KEY": (KEY, lambda c: key_of(c, "openai"), "sk-0123456789"),
    "OPENAI_MODEL": ({**KEY, "OPENAI_MODEL": "gpt-4"}, setting("openai", "model"), "gpt-4"),
    "OPENAI_ORG_ID": ({**KEY, "OPENAI_ORG_ID": "org-1"}, setting("openai", "organization_id"), "org-1"),
    "OPENAI_BASE_URL": (
        {**KEY, "OPENAI_BASE_URL": "https://proxy.example.com/v1"},
        setting("openai", "base_url"),
        "https://proxy.example.com/v1",
    ),
    "ANTHROPIC_API_KEY": (ANTHROPIC, lambda c: key_of(c, "anthropic"), "sk-ant-0123456789"),
    "ANTHROPIC_MODEL": ({**ANTHROPIC, "ANTHROPIC_MODEL": "claude-2"}, setting("anthropic", "model"), "claude-2"),
    "GOOGLE_GEMINI_API_KEY": (
        {"GOOGLE_GEMINI_API_KEY": "g-1234567", "GEMINI_API_KEY": "g-2345678", "GOOGLE_API_KEY": "g-3456789"},
        lambda c: key_of(c, "gemini"),
        "g-1234567",
    ),
    "GEMINI_API_KEY": (
        {"GEMINI_API_KEY": "g-2345678", "GOOGLE_API_KEY": "g-3456789"},
        lambda c: key_of(c, "gemini"),
        "g-2345678",
    ),
    "GOOGLE_API_KEY": ({"GOOGLE_API_KEY": "g-3456789"}, lambda c: key_of(c, "gemini"), "g-3456789"),
    "GEMINI_MODEL": ({"GEMINI_API_KEY": "g-2345678", "GEMINI_MODEL": "gemini-x"}, setting("gemini", "model"), "gemini-x"),
    "AZURE_OPENAI_API_KEY": (AZURE, lambda c: key_of(c, "azure_openai"), "az-0123456789"),
    "AZURE_OPENAI_ENDPOINT": (AZURE, setting("azure_openai", "azure_endpoint"), "https://my.openai.azure.com"),
    "AZURE_OPENAI_DEPLOYMENT": (AZURE, setting("azure_openai", "azure_deployment"), "my-deployment"),
    "AZURE_OPENAI_API_VERSION": (AZURE, setting("azure_openai", "api_version"), "2024-06-01"),
    "LLM_LOG_LEVEL": ({**KEY, "LLM_LOG_LEVEL": "debug"}, lambda c: c.telemetry.log_level, "DEBUG"),
    "LLM_ENABLE_TELEMETRY": ({**KEY, "LLM_ENABLE_TELEMETRY": "false"}, lambda c: c.telemetry.enabled, False),
    "LLM_KEY_ROTATION_INTERVAL": (
        {**KEY, "LLM_KEY_ROTATION_INTERVAL": "30"},
        setting("openai", "key_rotation_interval"),
        30 * 86_400.0,
    ),
    "LLM_ALLOWED_MODELS": (
        {**KEY, "LLM_ALLOWED_MODELS": '["gpt-4","claude-2"]'},
        policy("allowlist", "models"),
        ("gpt-4", "claude-2"),
    ),
    "LLM_MAX_PROMPT_TOKENS": ({**KEY, "LLM_MAX_PROMPT_TOKENS": "4096"}, policy("prompt_limit", "max_tokens"), 4096),
    "LLM_RATE_LIMIT_REQUESTS": (
        {**KEY, "LLM_RATE_LIMIT_REQUESTS": "100", "LLM_RATE_LIMIT": "7"},
        policy("rate_limit", "limits.0.requests"),
        100,
    ),
    "LLM_RATE_LIMIT": ({**KEY, "LLM_RATE_LIMIT": "100"}, policy("rate_limit", "limits.0.requests"), 100),
    "LLM_RATE_LIMIT_WINDOW": (
        {**KEY, "LLM_RATE_LIMIT": "100", "LLM_RATE_LIMIT_WINDOW": "30"},
        policy("rate_limit", "limits.0.per"),
        30.0,
    ),
    "LLM_CACHE_TTL": ({**KEY, "LLM_CACHE_TTL": "3600"}, policy("cache", "ttl"), 3600.0),
    "LLM_CACHE_MAX_ITEMS": (
        {**KEY, "LLM_CACHE_TTL": "3600", "LLM_CACHE_MAX_ITEMS": "5000"},
        policy("cache", "max_items"),
        5_000,
    ),
    "LLM_SIDECAR_SECRET": (
        {**KEY, "LLM_SIDECAR_SECRET": "0123456789abcdef"},
        lambda c: c.server.secret and c.server.secret.get_secret_value(),
        "0123456789abcdef",
    ),
}  # fmt: skip
#: Not settings: where to look, keys of tokens in llm.yml, and how commands reach a running sidecar.
ELSEWHERE = {"LLM_SIDECAR_CONFIG", "LLM_SIDECAR_FERNET_KEYS", "LLM_SIDECAR_URL", "LLM_SIDECAR_KEY"}


def test_the_table_is_complete() -> None:
    """Every variable that the loader knows has its row here."""
    assert set(VARIABLES) == TABLE.keys() | ELSEWHERE


@pytest.mark.parametrize("name", [pytest.param(name, marks=[needs_cache] if "CACHE" in name else []) for name in TABLE])
def test_each_variable(name: str, tmp_path: Path) -> None:
    """Each variable, set, has the effect that the contract gives it; unset, it has not."""
    environ, get, expected = TABLE[name]
    assert name in environ
    assert get(loaded(environ, tmp_path)) == expected
    without = {key: value for key, value in environ.items() if key != name}
    try:
        other = get(loaded(without, tmp_path))
    except (ConfigError, AssertionError, KeyError, ValueError):
        return
    assert other != expected


def test_the_first_provider_with_a_key_is_the_default(tmp_path: Path) -> None:
    """LLM_PROVIDER, openai, azure_openai, anthropic, gemini, in this order; all with keys are there."""
    everything = {**KEY, **AZURE, **ANTHROPIC, "GEMINI_API_KEY": "g-2345678"}
    order = ["openai", "azure_openai", "anthropic", "gemini"]
    config = loaded(everything, tmp_path)
    assert config.default_provider == "openai"
    assert list(config.providers) == order
    for gone, expected in (("OPENAI_API_KEY", "azure_openai"), ("AZURE_OPENAI_API_KEY", "anthropic")):
        del everything[gone]
        assert loaded(everything, tmp_path).default_provider == expected
    assert loaded({**everything, "LLM_PROVIDER": "gemini"}, tmp_path).default_provider == "gemini"


def test_no_policy_is_on_unasked(tmp_path: Path) -> None:
    """A key alone gives a plain proxy."""
    assert loaded(KEY, tmp_path).policies == ()


@needs_cache
def test_the_cache_brings_redaction(tmp_path: Path) -> None:
    """Only sanitised text is cached; LLM_CACHE_TTL=0 means no cache."""
    config = loaded({**KEY, "LLM_CACHE_TTL": "60"}, tmp_path)
    assert [entry.name for entry in config.policies] == ["redact", "cache"]
    assert loaded({**KEY, "LLM_CACHE_TTL": "0"}, tmp_path).policies == ()


@needs_cache
def test_all_policies_in_the_recommended_order(tmp_path: Path) -> None:
    """Whatever is switched on runs in an order that works."""
    environ = {
        **KEY, "LLM_CACHE_TTL": "60", "LLM_RATE_LIMIT": "5", "LLM_ALLOWED_MODELS": "gpt-4o, gpt-4o-mini",
        "LLM_MAX_PROMPT_TOKENS": "100",
    }  # fmt: skip
    config = loaded(environ, tmp_path)
    names = [entry.name for entry in config.policies]
    assert names == ["allowlist", "prompt_limit", "rate_limit", "redact", "cache"]


MISTAKES: list[tuple[dict[str, str], str]] = [
    ({}, "environment: there is no llm.yml and no provider in the environment: set OPENAI_API_KEY"),
    ({"LLM_PROVIDER": "opnai"}, "environment: LLM_PROVIDER: this must be"),
    ({"LLM_PROVIDER": "openai"}, "the default provider `openai` has no key; set OPENAI_API_KEY or LLM_API_KEY"),
    ({"LLM_PROVIDER": "other", "LLM_API_KEY": "k-123456"}, "`other` needs LLM_BASE_URL"),
    ({**KEY, "LLM_TEMPRATURE": "1"}, "environment: LLM_TEMPRATURE: this variable means nothing to llm-sidecar; did you "
     "mean `LLM_TEMPERATURE`?"),
    ({**KEY, "LLM_RATE_LIMIT_REQUEST": "5"}, "did you mean `LLM_RATE_LIMIT_REQUESTS`?"),
    ({**KEY, "LLM_MAX_TOKENS": "many"}, "environment: LLM_MAX_TOKENS: this must be a whole number"),
    ({**KEY, "LLM_TEMPERATURE": "7"}, "environment: LLM_TEMPERATURE: this must be at most 2"),
    ({**KEY, "LLM_TIMEOUT": "soon"}, "environment: LLM_TIMEOUT: a duration is"),
    ({**KEY, "LLM_MAX_PROMPT_TOKENS": "-1"}, "environment: LLM_MAX_PROMPT_TOKENS: this must be a number above 0"),
    ({**KEY, "LLM_ALLOWED_MODELS": '["gpt'}, "environment: LLM_ALLOWED_MODELS: this must be a JSON list"),
    ({**KEY, "LLM_ENABLE_TELEMETRY": "maybe"}, "environment: LLM_ENABLE_TELEMETRY: this must be true or false"),
    ({**KEY, "LLM_LOG_LEVEL": "LOUD"}, "environment: LLM_LOG_LEVEL: this must be"),
    ({**KEY, "LLM_RATE_LIMIT_WINDOW": "60"}, "limits nothing without LLM_RATE_LIMIT_REQUESTS"),
    ({**KEY, "LLM_CACHE_MAX_ITEMS": "60"}, "nothing is cached without LLM_CACHE_TTL"),
    ({**KEY, "OPENAI_BASE_URL": "api.example.com"}, "environment: OPENAI_BASE_URL: this must be an address"),
    ({"OPENAI_API_KEY": "sk a"}, "environment: OPENAI_API_KEY: an API key has no blanks"),
    ({**KEY, "LLM_SIDECAR_SECRET": "short"}, "a secret needs at least 16 characters"),
]  # fmt: skip


@pytest.mark.parametrize(("environ", "sentence"), MISTAKES, ids=lambda value: str(value)[:50])
def test_mistakes_name_the_variable(environ: dict[str, str], sentence: str, tmp_path: Path) -> None:
    """What is wrong with a variable is said with its name, without the value of a secret."""
    with pytest.raises(ConfigError) as caught:
        loaded(environ, tmp_path)
    assert sentence in str(caught.value)
    assert "sk a" not in str(caught.value)


def test_unrelated_variables_are_left_alone(tmp_path: Path) -> None:
    """Other programs' LLM_ and OPENAI_ variables are none of our business."""
    assert loaded({**KEY, "LLM_GATEWAY_HOST": "x", "OPENAI_AGENTS_DISABLE": "1"}, tmp_path).default_provider == "openai"


@pytest.fixture(scope="session")
def env_examples(shared: Path) -> list[str]:
    """The design document's two environment files."""
    text = next((shared / "seed").glob("*.txt")).read_text()
    found = re.findall(r"```env\n(.*?)```", text, re.DOTALL)
    assert len(found) == 2
    return found


@needs_cache
def test_the_first_env_example_loads_as_it_is(env_examples: list[str], tmp_path: Path) -> None:
    """`openai|anthropic|other` and `gpt-4|claude-2|other` mean their first word; everything takes effect."""
    (tmp_path / ".env").write_text(env_examples[0])
    config = loaded({}, tmp_path)
    assert config.default_provider == "openai"
    settings = config.providers["openai"].settings
    assert (settings.model, settings.max_tokens, settings.temperature) == ("gpt-4", 8192, 0.7)
    assert settings.key_rotation_interval == 90 * 86_400
    assert [entry.name for entry in config.policies] == ["allowlist", "prompt_limit", "rate_limit", "redact", "cache"]
    assert policy("allowlist", "models")(config) == ("gpt-4", "claude-2")
    assert policy("rate_limit", "limits.0.per")(config) == 60.0
    assert any("placeholder" in warning for warning in config.warnings)


@needs_cache
def test_the_second_env_example_loads_as_it_is(env_examples: list[str], tmp_path: Path) -> None:
    """Comments after values, three providers, GOOGLE_API_KEY for Gemini."""
    (tmp_path / ".env.llm").write_text(env_examples[1])
    config = loaded({}, tmp_path)
    assert config.default_provider == "openai"
    assert list(config.providers) == ["openai", "anthropic", "gemini"]
    assert config.providers["gemini"].settings.model == "gemini-1.5-pro"
    assert config.providers["anthropic"].settings.timeout == 30.0
    assert policy("cache", "ttl")(config) == 3600.0
    assert policy("rate_limit", "limits.0.requests")(config) == 100
