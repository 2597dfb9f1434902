"""The README's tables and examples are the code's: each is compared with what it describes."""

import os
import re
from pathlib import Path

import pytest

from policies.registry import BUILTIN
from proxy.cli import COMMANDS
from proxy.errors import TABLE
from proxy.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def errors_table():
    """Return the table of errors as the README must show it."""
    rows = ["| code | HTTP | type |", "| --- | --- | --- |"]
    rows += [f"| `{code}` | {row.status} | {row.type} |" for code, row in TABLE.items()]
    return "\n".join(rows)


def between(name):
    return README.split(f"<!-- {name} -->\n")[1].split(f"<!-- /{name} -->")[0].strip()


def test_the_errors_table_is_the_codes():
    """Every code stands in the README with its status and type, and no other."""
    assert between("errors") == errors_table()


def test_the_metrics_table_is_the_codes():
    """Every metric stands in the README with its labels and meaning, and no other."""
    rows = ["| metric | labels | says |", "| --- | --- | --- |"]
    rows += [f"| `{m.name}` | {', '.join(m.labels) or '–'} | {m.help} |" for m in Metrics().all()]
    assert between("metrics") == "\n".join(rows)


def test_policies_and_commands_are_all_there():
    """The tables name every built-in policy, in the order recommended, and every command."""
    table = README.split("### Policies")[1].split("### Commands")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == list(BUILTIN)
    commands = README.split("### Commands")[1].split("### A policy")[0]
    assert set(re.findall(r"^\| `llm-sidecar (\w+)", commands, re.MULTILINE)) == set(COMMANDS)


def test_the_policy_example_is_the_one_that_the_tests_run():
    """OfficeHours in the README is, line by line, the class that the pipeline's tests load."""
    shown = README.split("class OfficeHours(Policy):")[1].split("```")[0].strip()
    run = (ROOT / "tests/core/plugins.py").read_text().split("class OfficeHours(Policy):")[1].split("\n\n\n")[0].strip()
    assert shown == run


def test_the_vendor_example_is_the_file_that_a_test_runs():
    """The imaginary vendor in the README is, byte for byte, the provider that a test loads by dotted path."""
    shown = between("example vendor").removeprefix("```python\n").removesuffix("\n```")
    assert shown == (ROOT / "tests/providers/example_vendor.py").read_text().rstrip()


def test_the_example_file_loads_as_it_says():
    """The llm.yml that the README shows loads, with a real hash, in the order recommended."""
    from proxy.config.load import load_text

    shown = (
        between("example file").removeprefix("```yaml\n").removesuffix("```").replace("sha256:…", f"sha256:{'0' * 64}")
    )
    config = load_text(shown, {"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k"})
    assert [entry.name for entry in config.providers.values() if not entry.absent] == ["openai", "anthropic"]
    assert [target.to for target in config.models["smart"].targets] == ["anthropic/claude-sonnet-4-5", "openai/gpt-4o"]
    assert [policy.name for policy in config.policies] == ["allowlist", "rate_limit", "quota", "redact"]
    assert config.teams["platform"].token_quota == 5_000_000


@pytest.mark.parametrize("target", sorted(set(re.findall(r"^make ([a-z-]+)", README, re.MULTILINE))))
def test_every_make_target_exists(target):
    """Each `make` line of the README names a target."""
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_every_link_leads_somewhere(link):
    """Relative links of the README name files of the repository."""
    assert (ROOT / link).exists()


def test_nothing_names_this_machine():
    """No file names a package index, or a path of the machine it was written on."""
    import subprocess

    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    hosts = re.compile(
        rb"(?:files\.pythonhosted|pypi\.(?:org|python)|registry\.npmjs|/work/(?:main|shared|wt-|\.library))"
    )
    guilty = []
    for name in files:
        path = ROOT / name
        if name == "tests/docs/test_readme.py" or not (path.is_symlink() or path.is_file()):
            continue
        if hosts.search(os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()):
            guilty.append(name)
    assert guilty == []
