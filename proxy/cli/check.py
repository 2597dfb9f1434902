"""`llm-sidecar check`: what llm.yml does, or every mistake in it."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from typing import TYPE_CHECKING, Any

from proxy.cli import add
from proxy.cli.terminal import Style

if TYPE_CHECKING:
    from policies.base import Policy
    from proxy.config.model import Config
    from proxy.config.problem import Problem

_EPILOG = """\
examples:
  llm-sidecar check                    ./llm.yml: the running order, or every mistake with file and line
  llm-sidecar check --probe            ask each provider, too, whether its key works
  llm-sidecar check --json | jq .      the same for programs

Exit codes: 0 the configuration serves, 1 it does not (or a probe failed), 2 wrong usage.
"""


def register(commands: Any) -> None:
    """Add the command."""
    command = add(commands, "check", "load everything and print the running order, or every mistake", _EPILOG)
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.add_argument("--probe", action="store_true", help="ask each provider whether its key works")


def run(args: argparse.Namespace) -> int:
    """Check the configuration; return 0 if it serves, 1 if not."""
    from proxy.cli import offline
    from proxy.config.load import load
    from proxy.config.problem import ConfigError

    try:
        config = load(args.config)
    except ConfigError as error:
        return _bad(error.problems, args.json)
    built, problems = offline.policies(config)
    if problems:
        return _bad(problems, args.json)
    probes: dict[str, dict[str, Any]] = {}
    if args.probe:
        from proxy.cli.probe import probe

        probes = probe(config)
    report = describe(config, built, probes)
    if args.json:
        print(json.dumps(report, indent=2, ensure_ascii=False, default=str))
    else:
        _print(report, Style(sys.stdout))
    return 1 if any(result["status"] != "ok" for result in probes.values()) else 0


def describe(config: Config, built: list[Policy[Any]], probes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return what `check --json` prints for a configuration that serves."""
    from proxy.config.custom import facts, sentences

    warnings = list(config.warnings)
    rows = []
    for policy in built:
        warnings.extend(f"{config.source}: {policy.name}: {sentence}" for sentence in sentences(policy))
        row: dict[str, Any] = {"name": policy.name, "enforce": policy.enforce, "settings": facts(policy)}
        if policy.keeps_state:
            row["store_down"] = policy.store_down
        rows.append(row)
    providers = []
    for entry in config.providers.values():
        provider: dict[str, Any] = {"name": entry.name, "kind": entry.kind, "present": not entry.absent}
        if entry.absent:
            provider["reason"] = entry.reason
        elif entry.name in probes:
            provider["probe"] = probes[entry.name]
        providers.append(provider)
    return {
        "ok": True,
        "source": config.source,
        "listen": str(config.server.listen),
        "default_provider": config.default_provider,
        "providers": providers,
        "models": {
            name: {"strategy": route.strategy, "targets": [target.to for target in route.targets]}
            for name, route in config.models.items()
        },
        "store": config.store.kind,
        "auth": None if config.auth is None else {"keys": [key.id for key in config.auth.keys]},
        "policies": rows,
        "tests": len(config.tests),
        "warnings": warnings,
        "notes": list(config.notes),
        "problems": [],
    }


def _bad(problems: list[Problem], as_json: bool) -> int:
    if as_json:
        rows = [problem.as_dict() for problem in problems]
        print(json.dumps({"ok": False, "problems": rows}, indent=2, ensure_ascii=False))
        return 1
    print_problems(problems)
    return 1


def print_problems(problems: list[Problem]) -> None:
    """Print mistakes to standard error, one a line, and their number."""
    paint = Style(sys.stderr)
    for problem in problems:
        place, separator, message = str(problem).partition(": ")
        print(f"{paint(place, 'bold')}{separator}{message}", file=sys.stderr)
    count = len(problems)
    print(paint(f"{count} mistake{'s' if count > 1 else ''}; nothing would be served.", "red"), file=sys.stderr)


def _print(report: dict[str, Any], paint: Style) -> None:
    print(f"{paint(report['source'], 'bold')} {paint('is good', 'green')}\n")
    print(f"{paint('listen', 'bold')}      {report['listen']}")
    keys = "none" if report["auth"] is None else ", ".join(report["auth"]["keys"])
    print(f"{paint('auth', 'bold')}        {keys if report['auth'] is None else f'client keys: {keys}'}")
    print(f"{paint('store', 'bold')}       {report['store']}")
    print(f"\n{paint('providers', 'bold')}")
    width = max(len(row["name"]) for row in report["providers"])
    for row in report["providers"]:
        words = [] if row["name"] == row["kind"] else [row["kind"]]
        if row["name"] == report["default_provider"]:
            words.append("default")
        if not row["present"]:
            words.append(paint(f"absent: {row['reason']}", "yellow"))
        if "probe" in row:
            words.append(_probed(row["probe"], paint))
        print(f"  {row['name']:{width}}  {', '.join(words)}".rstrip())
    if report["models"]:
        print(f"\n{paint('models', 'bold')}")
        width = max(map(len, report["models"]))
        for name, route in report["models"].items():
            join = " or " if route["strategy"] == "weighted" else ", then "
            print(f"  {name:{width}}  {join.join(route['targets'])}")
    print(f"\n{paint('policies', 'bold')}, in running order")
    width = max((len(row["name"]) for row in report["policies"]), default=0)
    for number, row in enumerate(report["policies"], 1):
        settings = dict(row["settings"])
        delays = settings.pop("stream_delay_characters", None) or {}
        facts = [f"{key} {_short(value)}" for key, value in settings.items() if value not in (None, {}, [], ())]
        if not row["enforce"]:
            facts.insert(0, paint("only watches", "yellow"))
        if row.get("store_down") == "allow":
            facts.append("lets calls pass while the store is down")
        print(f"  {number:2}  {row['name']:{width}}  {' · '.join(facts)}".rstrip())
        if delays:
            print(f"{'':{width + 8}}characters that a stream may be held back by a beginning match:")
            listed = ", ".join(f"{name}\u00a0{_short(delay)}" for name, delay in delays.items())
            for line in textwrap.wrap(listed, 110 - width):
                print(f"{'':{width + 8}}{line.replace(chr(160), ' ')}")
    if not report["policies"]:
        print("  none: every call passes")
    for title, sentences in (("warnings", report["warnings"]), ("notes", report["notes"])):
        if sentences:
            print(f"\n{paint(title, 'bold')}")
            for sentence in sentences:
                print(f"  {paint(sentence, 'yellow') if title == 'warnings' else sentence}")


def _probed(result: dict[str, Any], paint: Style) -> str:
    if result["status"] == "ok":
        rows = result.get("keys", [result])
        models = max(row.get("models") or 0 for row in rows)
        works = "the key works" if len(rows) == 1 else f"all {len(rows)} keys work"
        good = paint(f"{works} ({models} models)" if models else works, "green")
        missing = sorted({name for row in rows for name in row.get("missing") or ()})
        return f"{good}, {paint('not in its list: ' + ', '.join(missing), 'yellow')}" if missing else good
    failed = [row for row in result.get("keys", [result]) if row["status"] != "ok"]
    return paint("; ".join(f"{row['code']}: {row['message']}" for row in failed), "red")


def _short(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.10g}"
    if isinstance(value, list | tuple):
        shown = ", ".join(_short(item) for item in value[:8])
        return f"[{shown}{', …' if len(value) > 8 else ''}]"
    if isinstance(value, dict):
        shown = ", ".join(f"{key} {_short(item)}" for key, item in list(value.items())[:8])
        return f"{{{shown}{', …' if len(value) > 8 else ''}}}"
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
