"""Where the configuration comes from, and what a whole one looks like."""

from __future__ import annotations

import os
import re
import stat
import sys
from pathlib import Path

import pytest

from proxy.cli import offline
from proxy.cli.check import describe
from proxy.config.load import ConfigError, find, load, load_text
from proxy.config.model import Address, Config, RouteTarget

MINIMAL = "providers: {echo: null}\n"
HASH = "sha256:" + "0123456789abcdef" * 4


def problems(text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_text(text, environ)
    return [str(problem) for problem in caught.value.problems]


# --- where it comes from ------------------------------------------------------------------------------------


def test_the_order_of_places(tmp_path: Path) -> None:
    """--config, LLM_SIDECAR_CONFIG, ./llm.yml, then nothing: the environment alone."""
    cwd = str(tmp_path)
    assert find(None, {}, cwd) is None
    (tmp_path / "llm.yml").write_text(MINIMAL)
    assert find(None, {}, cwd) == f"{cwd}/llm.yml"
    assert find(None, {"LLM_SIDECAR_CONFIG": "b.yml"}, cwd) == f"{cwd}/b.yml"
    assert find("a.yml", {"LLM_SIDECAR_CONFIG": "b.yml"}, cwd) == f"{cwd}/a.yml"


def test_variables_that_a_file_overrules_are_named(tmp_path: Path) -> None:
    """Who set LLM_RATE_LIMIT believes in a limit: beside a file it is none, unless the file names it; one line says so."""
    (tmp_path / "llm.yml").write_text(MINIMAL)
    (tmp_path / ".env.llm").write_text("LLM_CACHE_TTL=1h\nLLM_MODEL=\n")
    unused = {"LLM_RATE_LIMIT": "5", "OPENAI_MODEL": "x", "LLM_SIDECAR_SECRET": "s" * 32, "LLM_OTHER": "1", "HOME": "/"}
    (warning,) = load(None, unused, str(tmp_path)).warnings
    assert warning.startswith(
        "llm.yml: `LLM_RATE_LIMIT` and `LLM_CACHE_TTL` are set in the environment but count only "
    )
    named = "policies: [{rate_limit: {requests: '${LLM_RATE_LIMIT:-3}', per: '${LLM_RATE_LIMIT_WINDOW:-60}'}}]\n"
    (tmp_path / "llm.yml").write_text(MINIMAL + named)
    (warning,) = load(None, unused, str(tmp_path)).warnings
    assert warning.startswith("llm.yml: `LLM_CACHE_TTL` is set in the environment but counts only ")
    (tmp_path / "llm.yml").unlink()
    assert not load(None, {"LLM_PROVIDER": "echo", "LLM_RATE_LIMIT": "5"}, str(tmp_path)).warnings


def test_a_named_file_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    """A mistyped path never falls through to another configuration."""
    (tmp_path / "llm.yml").write_text(MINIMAL)
    with pytest.raises(ConfigError, match=r"lm\.yml: the file cannot be read \(No such file"):
        load("lm.yml", {}, str(tmp_path))


def test_the_file_names_itself_as_short_as_it_can(tmp_path: Path) -> None:
    """Messages name the file as the user would: relative to where they are."""
    (tmp_path / "llm.yml").write_text(MINIMAL)
    (tmp_path / "sub").mkdir()
    assert load(None, {}, str(tmp_path)).source == "llm.yml"
    config = load(str(tmp_path / "llm.yml"), {}, str(tmp_path / "sub"))
    assert config.source == str(tmp_path / "llm.yml")
    assert config.folder == str(tmp_path)


def test_env_files_are_seen_by_expansions(tmp_path: Path) -> None:
    """`${…}` sees the process, then .env.llm, then .env; LLM_SIDECAR_CONFIG may stand there too."""
    (tmp_path / "my.yml").write_text("providers: {openai: {api_key: '${A}', model: '${B}', organization_id: '${C}'}}")
    (tmp_path / ".env").write_text("A=sk-env\nB=env\nC=env\nLLM_SIDECAR_CONFIG=my.yml\n")
    (tmp_path / ".env.llm").write_text("A=sk-llm\nB=llm\n")
    settings = load(None, {"A": "sk-process"}, str(tmp_path)).providers["openai"].settings
    assert settings.api_key[0].get_secret_value() == "sk-process"
    assert settings.model == "llm"
    assert settings.organization_id == "env"  # type: ignore[attr-defined]


def test_a_file_of_ten_mebibytes_is_refused(tmp_path: Path) -> None:
    """T24: it is not even read."""
    with (tmp_path / "llm.yml").open("wb") as handle:
        handle.truncate(10 << 20)
    with pytest.raises(ConfigError, match=r"llm\.yml: the file is 10\.0 MiB; at most 1 MiB is read"):
        load(None, {}, str(tmp_path))


def test_the_files_it_depends_on_are_known(tmp_path: Path) -> None:
    """For a reload when one of them changes."""
    (tmp_path / "llm.yml").write_text("providers: {openai: {api_key: '${file:key}'}}")
    (tmp_path / "key").write_text("sk-0123456789\n")
    names = [os.path.relpath(name, tmp_path) for name in load(None, {}, str(tmp_path)).files]
    assert names == ["llm.yml", ".env.llm", ".env", "key"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (":9000", "127.0.0.1:9000"),
        ("localhost:", "localhost:8080"),
        ("[::1]:0", "[::1]:0"),
        (Address("::1", 1), "[::1]:1"),
    ],
)
def test_the_command_line_overrides_the_address(given: str | Address, expected: str) -> None:
    """serve --host --port stand in for server.listen, each alone or both."""
    assert str(load_text(MINIMAL, listen=given).server.listen) == expected


def test_an_override_is_checked_too() -> None:
    """--host 0.0.0.0 without auth refuses; --host 127.0.0.1 makes a file serve that would not."""
    with pytest.raises(ConfigError, match="can be reached from other machines"):
        load_text(MINIMAL, listen="0.0.0.0:")
    load_text(f"{MINIMAL}server: {{listen: 0.0.0.0:8080}}", listen="127.0.0.1:")
    with pytest.raises(ConfigError, match="--host, --port: an address is"):
        load_text(MINIMAL, listen=":99999")


# --- the design document's own example ------------------------------------------------------------------------


@pytest.fixture(scope="session")
def example(shared: Path) -> str:
    """The design document's config/llm.yml."""
    text = next((shared / "seed").glob("*.txt")).read_text()
    found = re.search(r"```yaml\n(# config/llm\.yml.*?)```", text, re.DOTALL)
    assert found
    return found[1]


def test_the_design_documents_example_loads_as_it_is(example: str) -> None:
    """With every key, all four providers are there with their settings."""
    environ = {
        "OPENAI_API_KEY": "sk-0123456789", "OPENAI_ORG_ID": "org-1", "ANTHROPIC_API_KEY": "sk-ant-0123456789",
        "AZURE_OPENAI_API_KEY": "az-0123456789", "GOOGLE_GEMINI_API_KEY": "g-0123456789",
    }  # fmt: skip
    config = load_text(example, environ)
    assert config.default_provider == "openai"
    assert not any(entry.absent for entry in config.providers.values())
    openai = config.providers["openai"].settings
    assert (openai.model, openai.timeout, openai.max_retries) == ("gpt-4", 30.0, 3)
    assert openai.organization_id == "org-1"  # type: ignore[attr-defined]
    assert config.providers["anthropic"].settings.version == "2023-06-01"  # type: ignore[attr-defined]
    assert config.providers["azure_openai"].settings.api_version == "2023-05-15"  # type: ignore[attr-defined]
    assert config.providers["gemini"].settings.safety_settings  # type: ignore[attr-defined]


def test_with_one_key_the_other_providers_are_absent(example: str) -> None:
    """The example needs no more than the default provider's key; each absence is one line at start."""
    config = load_text(example, {"OPENAI_API_KEY": "sk-0123456789"})
    assert [name for name, entry in config.providers.items() if entry.absent] == ["anthropic", "azure_openai", "gemini"]
    for name in ("ANTHROPIC_API_KEY", "AZURE_OPENAI_API_KEY", "GOOGLE_GEMINI_API_KEY"):
        assert sum(f"{name} is not set" in note for note in config.notes) == 1


def test_without_the_default_providers_key_it_does_not_serve(example: str) -> None:
    """The one mistake names the variable."""
    with pytest.raises(ConfigError) as caught:
        load_text(example, {"ANTHROPIC_API_KEY": "sk-ant-0123456789"})
    (problem,) = caught.value.problems
    assert "OPENAI_API_KEY is not set" in str(problem)


# --- providers ------------------------------------------------------------------------------------------------


def test_an_absent_provider_still_has_its_typos_told() -> None:
    """A mistyped key is a mistake, whoever has no key for it; what is merely missing is not."""
    text = "providers:\n  echo:\n  openai: {api_key: '${NO}', temprature: 1}\n  azure_openai: {api_key: '${NO}'}"
    assert problems(text) == ["llm.yml:3: providers.openai.temprature: unknown key; did you mean `temperature`?"]


@pytest.mark.parametrize("value", ["'${NO}'", "'${EMPTY}'", "'${NO:-}'", "''", "null", "['${NO}', '']"])
def test_what_makes_a_provider_absent(value: str) -> None:
    """A key that is unset or empty, in whatever way; of several keys, all of them."""
    config = load_text(f"providers: {{echo: null, openai: {{api_key: {value}}}}}", {"EMPTY": ""})
    assert config.providers["openai"].absent
    assert config.default_provider == "echo"


def test_of_several_keys_the_unset_ones_are_left_out() -> None:
    """One key that is there is enough."""
    config = load_text(
        "providers: {openai: {api_key: ['${NO}', '${A}', '${B}']}}", {"A": "sk-aaaaaa", "B": "sk-bbbbbb"}
    )
    keys = [key.get_secret_value() for key in config.providers["openai"].settings.api_key]
    assert keys == ["sk-aaaaaa", "sk-bbbbbb"]


def test_a_compatible_server_needs_no_key() -> None:
    """`kind: openai` with a base_url of its own and no api_key is present."""
    config = load_text("providers: {local: {kind: openai, base_url: 'http://127.0.0.1:11434/v1'}}")
    assert not config.providers["local"].absent
    assert config.default_provider == "local"


def test_an_absent_target_is_a_mistake_only_where_it_is_needed() -> None:
    """`models` needs its providers; nothing else does."""
    text = "providers: {echo: null, openai: {api_key: '${NO}'}}\nmodels: {smart: [echo/x, openai/gpt-4o]}"
    (problem,) = problems(text)
    assert problem.startswith("llm.yml:2: models.smart[1]: `openai/gpt-4o` needs the provider `openai`")


def test_plain_http_to_another_machine_is_warned_about() -> None:
    """T27: an explicit http:// works, and is said; loopback is nobody's business."""
    config = load_text("providers: {a: {kind: openai, base_url: 'http://llm.internal/v1'}}")
    assert any("unencrypted" in warning for warning in config.warnings)
    assert not load_text("providers: {a: {kind: openai, base_url: 'http://localhost:1/v1'}}").warnings


def test_the_sidecars_own_address_is_no_upstream() -> None:
    """T29: the loop is seen at load already where it can be."""
    (problem,) = problems("providers: {a: {kind: openai, base_url: 'http://127.0.0.1:8080/v1'}}")
    assert "the sidecar's own address" in problem


@pytest.mark.parametrize("missing", [True, False])
def test_authorities_that_are_none_are_a_mistake_at_load(tmp_path: Path, missing: bool) -> None:
    """A `ca_file` that is not there or holds no certificate stops `check` with its line, not each connection later."""
    file = tmp_path / "ca.pem"
    if not missing:
        file.write_text("-----BEGIN NOTHING-----\n")
    what = f"there is no file {file}" if missing else f"{file} cannot be read as PEM certificates: it holds none"
    assert problems(f"providers: {{openai: {{api_key: k, tls: {{ca_file: {file}}}}}}}\n") == [
        f"llm.yml:1: providers.openai.tls.ca_file: {what}"
    ]
    store = f"store: rediss://h/0?ca_file={file}\nserver: {{secret: {'s' * 40}}}\n"
    assert problems(store + MINIMAL) == [f"llm.yml:1: store: {what}"]


def test_keys_hold_no_line_breaks(tmp_path: Path) -> None:
    """A file with two lines is no API key: it would end a header."""
    (tmp_path / "key").write_text("sk-0123\nx: y\n")
    with pytest.raises(ConfigError, match="an API key has no blanks, line breaks"):
        load_text("providers: {openai: {api_key: '${file:key}'}}", {}, str(tmp_path))


# --- models, teams, auth ---------------------------------------------------------------------------------------


def test_forms_of_routes() -> None:
    """A string, a list, and a mapping with weights."""
    text = """
providers: {a: {kind: echo}, b: {kind: echo}}
models:
  one: a/x
  two: [a/x, b/y/z]
  three: {strategy: weighted, targets: [{to: a/x, weight: 3}, b/y]}
"""
    models = load_text(text).models
    assert models["one"].targets == (RouteTarget("a/x"),)
    assert models["two"].targets == (RouteTarget("a/x"), RouteTarget("b/y/z"))
    assert models["three"].strategy == "weighted"
    assert models["three"].targets == (RouteTarget("a/x", 3.0), RouteTarget("b/y", 1.0))


def test_teams_are_typed_and_plain() -> None:
    """Durations are seconds, parameters a plain dict; a team without values is a team."""
    text = """
providers: {echo: null}
policies: [{rate_limit: {limits: [{by: team, requests: 1}]}}]
teams:
  a: {rate_limit: {requests: 600, per: 1m}, parameters: {temperature: 0.2, seed: 7}}
  b:
"""
    teams = load_text(text).teams
    assert teams["a"].rate_limit is not None
    assert teams["a"].rate_limit.per == 60.0
    assert teams["a"].parameters == {"temperature": 0.2, "seed": 7}
    assert teams["b"].parameters == {}


@pytest.mark.parametrize(
    ("teams", "given", "settled"),
    [("", "", "default"), ("teams: {a: {}}", "", "refuse"), ("teams: {default: {}}", "", "default"),
     ("teams: {a: {}}", "unknown_team: default, ", "default"), ("", "unknown_team: refuse, ", "refuse")],
)  # fmt: skip
def test_unknown_teams_are_refused_once_any_is_listed(teams: str, given: str, settled: str) -> None:
    """`unknown_team` is settled at load: refuse if teams are listed, unless the file says otherwise."""
    config = load_text(f"{MINIMAL}{teams}\nauth: {{{given}keys: [{{id: k, hash: '{HASH}'}}]}}")
    assert config.auth is not None
    assert config.auth.unknown_team == settled


def test_roles_give_permissions() -> None:
    """The default roles stay, own ones are added, a key has the union of its roles."""
    text = f"{MINIMAL}auth: {{roles: {{auditor: ['llm:view']}}, keys: [{{id: k, hash: '{HASH}', roles: [auditor, train]}}]}}"
    auth = load_text(text).auth
    assert auth is not None
    assert auth.permissions(auth.keys[0]) == {"llm:view", "llm:generate", "llm:train"}


def test_an_expired_key_is_warned_about() -> None:
    """It loads, because a file must not stop to serve overnight; it is refused, and said."""
    config = load_text(f"{MINIMAL}auth: {{keys: [{{id: k, hash: '{HASH}', expires: 2020-01-01}}]}}")
    assert any("expired on 2020-01-01" in warning for warning in config.warnings)


def test_an_address_with_an_unset_variable_is_one_mistake() -> None:
    """What follows from a mistake is none of its own."""
    for key in ("base_url", "proxy"):
        with pytest.raises(ConfigError) as wrong:
            load_text(f"providers: {{a: {{kind: openai, api_key: sk-0123456789, {key}: '${{NOWHERE}}/v1'}}}}")
        (problem,) = wrong.value.problems
        assert "NOWHERE is not set" in str(problem)


def test_a_limit_that_a_team_loses_is_warned_about() -> None:
    """A team's own limit stands in for the whole one by team: what it does not speak of is unlimited, and that is said."""
    text = (
        f"{MINIMAL}policies: [{{rate_limit: {{limits: [{{by: team, requests: 9, tokens: 9, concurrent: 9}}, {{by: user, requests: 9}}]}}}}]\n"
        "teams: {a: {rate_limit: {requests: 5}, users: {u: {rate_limit: {requests: 2}}}}, b: {rate_limit: {requests: 1, tokens: 1, concurrent: 1}}}"
    )
    (warning,) = load_text(text).warnings
    assert "teams.a.rate_limit: this stands in for every limit that is `by: team`" in warning
    assert "none of `tokens` or `concurrent` is left" in warning


def test_what_the_start_says() -> None:
    """No auth and no secret are each one note; with both there is nothing to say."""
    assert len(load_text(MINIMAL).notes) == 2
    text = f"{MINIMAL}auth: {{keys: [{{id: k, hash: '{HASH}'}}]}}\nserver: {{secret: 0123456789abcdef}}"
    assert load_text(text).notes == ()


# --- policies ---------------------------------------------------------------------------------------------------


def names(config: Config) -> list[str]:
    return [entry.name for entry in config.policies]


def test_entries_of_policies() -> None:
    """A name alone, a name with settings, shadow mode, and what happens without the store."""
    text = MINIMAL + "policies: [prompt_limit, {quota: {tokens: 9_000, enforce: false, store_down: allow}}]"
    config = load_text(text)
    assert names(config) == ["prompt_limit", "quota"]
    first, second = config.policies
    assert first.enforce
    assert first.config.max_tokens == 4096  # type: ignore[attr-defined]
    assert (second.enforce, second.store_down) == (False, "allow")
    assert second.config.tokens == 9_000  # type: ignore[attr-defined]


PLUGIN = """
from policies.base import Policy, PolicyConfig

class OfficeHours(Policy):
    class Config(PolicyConfig):
        team: str
        start: int = 8
    after = ("template",)

class Odd:
    pass
"""


def test_an_own_policy_lies_beside_the_file(tmp_path: Path) -> None:
    """package.module:Class is found in the folder of llm.yml, and its settings are checked like ours."""
    (tmp_path / "my_team_a").mkdir()
    (tmp_path / "my_team_a" / "office_hours.py").write_text(PLUGIN)
    entry = "my_team_a.office_hours:OfficeHours"
    config = load_text(f"{MINIMAL}policies: [{{'{entry}': {{team: interns}}}}]", {}, str(tmp_path))
    assert names(config) == [entry]
    with pytest.raises(ConfigError, match="unknown key; did you mean `team`"):
        load_text(f"{MINIMAL}policies: [{{'{entry}': {{taem: interns}}}}]", {}, str(tmp_path))
    with pytest.raises(ConfigError, match="has no class `OfficeHour`; did you mean `OfficeHours`"):
        load_text(f"{MINIMAL}policies: [{{'my_team_a.office_hours:OfficeHour': {{}}}}]", {}, str(tmp_path))
    with pytest.raises(ConfigError, match="must be a subclass"):
        load_text(f"{MINIMAL}policies: ['my_team_a.office_hours:Odd']", {}, str(tmp_path))
    sys.path.remove(str(tmp_path))


def test_an_own_policy_that_does_not_import_says_why(tmp_path: Path) -> None:
    """The module's own error is in the sentence."""
    (tmp_path / "broken_plugin_b.py").write_text("1 / 0")
    (tmp_path / "needy_plugin_b.py").write_text("import no_such_package_b")
    with pytest.raises(ConfigError, match="cannot be imported: ZeroDivisionError"):
        load_text(f"{MINIMAL}policies: ['broken_plugin_b:X']", {}, str(tmp_path))
    with pytest.raises(ConfigError, match="needs `no_such_package_b`, which is not installed"):
        load_text(f"{MINIMAL}policies: ['needy_plugin_b:X']", {}, str(tmp_path))
    sys.path.remove(str(tmp_path))


FLAWED = {
    "def on_request(self, call): return None": "`on_request` must be an `async def` without `yield`",
    "async def on_request(self, call): yield": "`on_request` must be an `async def` without `yield`",
    "async def claims(self, call): return []": "`claims` must be a plain `def`: nobody awaits it",
    "async def on_reply(self, call): return None": "`on_reply` must be a plain `def`: nobody awaits it",
    "after = 'template'": "`after` must be a tuple of names",
    "Config = dict": "`Config` must be a subclass of `policies.base.PolicyConfig`",
    "class Config: pass": "`Config` must be a subclass of `policies.base.PolicyConfig`",
}


@pytest.mark.parametrize("line", FLAWED)
def test_an_own_policy_that_could_never_work_is_a_mistake(line: str, tmp_path: Path) -> None:
    """A hook that nobody awaits, or that should be awaited, is told when the file is loaded, with its line."""
    name = f"flawed_plugin_{list(FLAWED).index(line)}"
    (tmp_path / f"{name}.py").write_text(f"from policies.base import Policy\nclass P(Policy):\n    {line}\n")
    with pytest.raises(ConfigError) as caught:
        load_text(f"{MINIMAL}policies:\n  - {name}:P", {}, str(tmp_path))
    sys.path.remove(str(tmp_path))
    assert f"llm.yml:3: policies[0].{name}:P: `{name}:P` cannot work: {FLAWED[line]}" in str(caught.value)


DECORATED = {
    "async": "def d(f):\n @functools.wraps(f)\n async def run(self, call): return await asyncio.to_thread(f, self, call)\n return run",
    "plain": "def d(f):\n @functools.wraps(f)\n def run(self, call): return f(self, call)\n return run",
    "nameless": "def d(f):\n def run(self, call): return f(self, call)\n return run",
}


@pytest.mark.parametrize("kind", DECORATED)
def test_a_decorated_policy_loads(kind: str, tmp_path: Path) -> None:
    """A decorator may make a plain hook one to be awaited, or hand on what can be: no such policy is a mistake."""
    hook = "def on_request(self, call): return None"
    hook = hook if kind == "async" else f"async {hook}"
    (tmp_path / f"decorated_{kind}.py").write_text(
        f"import asyncio, functools\nfrom policies.base import Policy\n{DECORATED[kind]}\n"
        f"class P(Policy):\n    @d\n    {hook}\n"
    )
    assert load_text(f"{MINIMAL}policies: ['decorated_{kind}:P']", {}, str(tmp_path)).policies
    sys.path.remove(str(tmp_path))


ENDS_PROCESS = {
    "at import": "raise SystemExit(3)",
    "when built": "def __init__(self, config, kit): raise SystemExit(3)",
}


@pytest.mark.parametrize("when", ENDS_PROCESS)
def test_an_own_policy_cannot_end_the_process(when: str, tmp_path: Path) -> None:
    """`sys.exit()` in a module or a constructor is a mistake with its line: a reload must outlive it."""
    name = f"ending_plugin_{when[0]}"
    (tmp_path / f"{name}.py").write_text(
        f"from policies.base import Policy\nclass P(Policy):\n    {ENDS_PROCESS[when]}\n"
    )
    try:
        config = load_text(f"{MINIMAL}policies: ['{name}:P']", {}, str(tmp_path))
    except ConfigError as error:
        assert when == "at import" and "cannot be imported: SystemExit" in str(error)
    else:
        (problem,) = offline.policies(config)[1]
        assert "it would end the process" in str(problem)
    sys.path.remove(str(tmp_path))


def test_an_own_constructor_may_forget_ours(tmp_path: Path) -> None:
    """A policy whose `__init__` calls no `super().__init__` has its `config` and `kit` all the same; one that fails to
    describe itself is still checked."""
    code = (
        "from policies.base import Policy\nclass P(Policy):\n    def __init__(self, config, kit): pass\n"
        "class Q(P):\n    def describe(self): raise RuntimeError('secret')\n    def warnings(self): raise SystemExit('secret')\n"
    )
    (tmp_path / "forgetful_plugin.py").write_text(code)
    config = load_text(f"{MINIMAL}policies: ['forgetful_plugin:P', 'forgetful_plugin:Q']", {}, str(tmp_path))
    built, problems = offline.policies(config)
    sys.path.remove(str(tmp_path))
    assert not problems
    assert built[0].config is config.policies[0].config
    assert built[0].kit.config is config
    report = describe(config, built, {})
    assert [row["settings"] for row in report["policies"]] == [{}, {"error": "`describe` raised RuntimeError"}]
    assert "llm.yml: forgetful_plugin:Q: `warnings` raised SystemExit" in report["warnings"]


@pytest.mark.parametrize("name", ["proxy", "policies"])
def test_a_local_folder_with_our_packages_name_is_a_mistake(name: str, tmp_path: Path) -> None:
    """It would hide ours, or be hidden: nobody could tell which rules run."""
    (tmp_path / name).mkdir()
    with pytest.raises(ConfigError, match=f"the folder `{name}` beside this file hides"):
        load_text(MINIMAL, {}, str(tmp_path))


# --- the file itself ----------------------------------------------------------------------------------------------


def test_secrets_in_a_file_that_all_can_read(tmp_path: Path) -> None:
    """T24: a literal key in a world-readable file is warned about, one from a variable is not."""
    file = tmp_path / "llm.yml"
    file.write_text("providers: {openai: {api_key: sk-0123456789}, anthropic: {api_key: '${A}'}}")
    file.chmod(0o644)
    (warning,) = load(None, {"A": "sk-ant-0123456789"}, str(tmp_path)).warnings
    assert "`providers.openai.api_key`" in warning
    assert "anthropic" not in warning
    file.chmod(stat.S_IRUSR | stat.S_IWUSR)
    assert not load(None, {"A": "sk-ant-0123456789"}, str(tmp_path)).warnings


def test_every_secret_is_known_for_scrubbing() -> None:
    """Keys of providers, of clients and the server's own, and nothing else."""
    text = (
        "server: {secret: 0123456789abcdef}\nproviders: {openai: {api_key: [sk-one-123, sk-two-123]}}\n"
        "auth: {keys: [{id: k, key: lsk_0123456789abcdef}]}"
    )
    config = load_text(text)
    assert set(config.secrets) == {"0123456789abcdef", "sk-one-123", "sk-two-123", "lsk_0123456789abcdef"}
    assert "sk-one" not in repr(config)
    assert "lsk_" not in repr(config)
    assert "0123456789abcdef" not in repr(config)
