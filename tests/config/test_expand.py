"""``${…}`` inside scalars, after parsing."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from proxy.config.load import ConfigError, load_text
from proxy.config.model import Config

BASE = "providers: {echo: null}\n"


def loaded(text: str, folder: str | None = None, **environ: str) -> Config:
    return load_text(BASE + text, environ, folder)


def problems(text: str, folder: str | None = None, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(text, folder, **environ)
    return [str(problem) for problem in caught.value.problems]


def first_name(config: Config) -> str:
    return config.tests[0].name


def named(scalar: str) -> str:
    return (
        f"tests:\n  - name: {scalar}\n    request: {{messages: [{{role: user, content: hi}}]}}\n"
        "    expect: {allowed: true}"
    )


@pytest.mark.parametrize(
    ("scalar", "expected"),
    [
        ("${A}", "alpha"), ("x ${A} y", "x alpha y"), ("${A}${B}", "alphabeta"), ("${NO:-d}", "d"),
        ("${EMPTY:-d}", "d"), ('"${NO:-a b}"', "a b"), ("'${A}'", "alpha"), ("$${A}", "${A}"), ("a $${A} b", "a ${A} b"),
        ("$A b", "$A b"), ("100$", "100$"), ("x${EMPTY:-}y", "xy"), ("${A:-${B}}", "alpha}"),
    ],
)  # fmt: skip
def test_forms(scalar: str, expected: str) -> None:
    """Whole and partial expansions, defaults for unset and empty variables, and `$${` for the characters."""
    config = loaded(named(scalar), A="alpha", B="beta", EMPTY="")
    assert first_name(config) == expected


def test_a_value_is_never_yaml() -> None:
    """T24: whatever a variable holds stays one scalar: no keys, no lists, no second expansion."""
    config = loaded(named("${EVIL}"), EVIL="a: 1, b: [2] # ${HOME} *x", HOME="/root")
    assert first_name(config) == "a: 1, b: [2] # ${HOME} *x"


@pytest.mark.parametrize("value", ["a\nadmin: true", "a\r\nb", "a\x00b", "sk-1\n"])
def test_line_breaks_in_variables_are_refused(value: str) -> None:
    """T24: a line break in a variable is refused, not passed on; the message shows no value."""
    (problem,) = problems(named("${EVIL}"), EVIL=value)
    assert "the environment variable EVIL holds a line break" in problem
    assert "admin" not in problem


@pytest.mark.parametrize(
    ("setting", "value", "path", "expected"),
    [
        ("max_in_flight", "50", "max_in_flight", 50),
        ("reuse_port", "true", "reuse_port", True),
        ("max_body", "2MiB", "max_body", 2 << 20),
        ("drain_delay", "1m", "drain_delay", 60.0),
        ("listen", "127.0.0.1:9", "listen", ("127.0.0.1", 9)),
    ],
)
def test_a_whole_expansion_has_the_settings_type(setting: str, value: str, path: str, expected: object) -> None:
    """Variables are texts; numbers and booleans are taken from them where the setting is one."""
    config = loaded(f"server: {{{setting}: '${{V}}'}}", V=value)
    assert getattr(config.server, path) == expected


def test_a_wrong_type_from_a_variable_is_refused_without_its_value() -> None:
    """A message never shows what a variable holds."""
    (problem,) = problems("server: {max_in_flight: '${V}'}", V="hunter2")
    assert problem == "llm.yml:2: server.max_in_flight: this must be a whole number"


def test_unset_optional_texts_are_left_out() -> None:
    """An optional text whose variable is unset or empty counts as not there."""
    text = (
        "default_provider: openai\nproviders:\n  openai: {api_key: k-123456, organization_id: '${ORG}', model: '${M}'}"
    )
    for environ in ({}, {"ORG": "", "M": " "}):
        settings = load_text(text, environ).providers["openai"].settings
        assert settings.model is None
        assert settings.organization_id is None  # type: ignore[attr-defined]


def test_anything_else_unset_is_a_mistake() -> None:
    """Numbers, parts of a text, list items and required texts need their variable."""
    text = (
        "server: {max_in_flight: '${N1}'}\n"
        "features: ['${N2}']\n"
        "default_provider: ${N3}\n"
        "providers: {openai: {api_key: k-123456, base_url: 'https://${N4}/v1'}}"
    )
    with pytest.raises(ConfigError) as caught:
        load_text(text, {"N33": "x"})
    found = [str(problem) for problem in caught.value.problems]
    for name in ("N1", "N2", "N3", "N4"):
        assert any(f"the environment variable {name} is not set" in sentence for sentence in found), name


def test_a_client_key_never_vanishes() -> None:
    """A key of `auth:` whose variable is unset is a mistake, not one caller less."""
    found = problems("auth: {keys: [{id: ops, key: '${OPS_KEY}', roles: [manage]}]}")
    assert any("OPS_KEY is not set" in sentence for sentence in found)


def test_a_near_miss_is_suggested() -> None:
    """A mistyped variable is answered with the one that is set."""
    found = problems("server: {max_in_flight: '${MAX_INFLIGHT}'}", MAX_IN_FLIGHT="3")
    assert found[0].endswith("did you mean `MAX_IN_FLIGHT`?")


@pytest.mark.parametrize("scalar", ["${a b}", "${", "${X", "${1X}", "${}", "${X-y}"])
def test_broken_expansions_are_explained(scalar: str) -> None:
    """Something that begins like an expansion and is none gets a sentence with both ways out."""
    (problem,) = problems(named(f'"{scalar}"'))
    assert "begins an expansion" in problem
    assert "`$${`" in problem


def test_a_bare_variable_is_a_mistake() -> None:
    """`$NAME` alone would be taken literally, as a key for example."""
    (problem,) = problems(named("$OPENAI_API_KEY"))
    assert "write `${OPENAI_API_KEY}`" in problem


def test_files(tmp_path: Path) -> None:
    """A file's text stands for the expansion, without its last line break, relative to llm.yml."""
    (tmp_path / "name").write_text("from a file\n")
    (tmp_path / "empty").write_text("\n")
    assert first_name(loaded(named("${file:name}"), str(tmp_path))) == "from a file"
    assert first_name(loaded(named(f"${{file:{tmp_path}/name}}"))) == "from a file"
    assert first_name(loaded(named("${file:nothing:-d}"), str(tmp_path))) == "d"
    assert "cannot be read" in problems(named("${file:nothing}"), str(tmp_path))[0]
    assert "is empty" in problems(named("${file:empty}"), str(tmp_path))[0]
    (tmp_path / "big").write_text("x" * 70_000)
    assert "larger than 64 KiB" in problems(named("${file:big}"), str(tmp_path))[0]


def test_the_files_that_were_read_are_known(tmp_path: Path) -> None:
    """A reload can watch every file that the configuration depends on."""
    (tmp_path / "name").write_text("x")
    assert loaded(named("${file:name}"), str(tmp_path)).files == (str(tmp_path / "name"),)


def test_fernet() -> None:
    """A token opens with any of the keys; without the right one the sentence says which variable to set."""
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    token = Fernet(old).encrypt(b"sk-secret").decode()
    config = loaded(named(f'"${{fernet:{token}}}"'), LLM_SIDECAR_FERNET_KEYS=f"{new}, {old}")
    assert first_name(config) == "sk-secret"
    assert "opens with none of the keys" in problems(named(f"'${{fernet:{token}}}'"), LLM_SIDECAR_FERNET_KEYS=new)[0]
    assert "LLM_SIDECAR_FERNET_KEYS is not set" in problems(named(f"'${{fernet:{token}}}'"))[0]
    assert "must be a comma list" in problems(named(f"'${{fernet:{token}}}'"), LLM_SIDECAR_FERNET_KEYS="x")[0]


def test_x_keys_are_free() -> None:
    """Top-level keys that begin with x- may hold anything, for anchors; what is in them is not expanded."""
    config = loaded("x-common: &c {max_in_flight: 7, y: '${NOT_SET}'}\nx-2: [1]\nserver: {max_in_flight: 7}")
    assert config.server.max_in_flight == 7
