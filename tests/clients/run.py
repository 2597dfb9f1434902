"""`make clients`: real OpenAI clients through the sidecar, with each vendor behind it; exit code = failures.

The clients and their cases are those of ``../shared/clients`` (or ``$SHARED_DIR/clients``). They are
installed once into ``.bench/clients``, each group in an environment of its own. The vendors are played by
aimock, a public mock server that speaks all four wires.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.clients import batch  # noqa: E402
from tests.fakes.ports import free_port  # noqa: E402
from tests.fakes.sidecar import CLIENT_KEY, PROVIDER_KEY, Sidecar, hash_key  # noqa: E402

SHARED = Path(os.environ.get("SHARED_DIR") or ROOT.parent / "shared") / "clients"
HOME = ROOT / ".bench" / "clients"
#: Environment -> what is installed there. The names are those that run_clients.py looks for.
ENVIRONMENTS = {
    "venv": [
        "openai", "anthropic", "langchain-openai", "llama-index-llms-openai-like", "llama-index-embeddings-openai-like",
        "pydantic-ai-slim[openai]", "instructor", "llm", "pillow", "httpx",
    ],
    "llvenv": ["litellm[mcp]"],
    "aidervenv": ["aider-chat"],
}  # fmt: skip
#: Vendor -> the model that the clients name, and the one for embeddings (Anthropic has none: OpenAI's stand in).
VENDORS = {
    "openai": ("gpt-4o-mini", "text-embedding-3-small"),
    "azure_openai": ("gpt-4o-mini", "text-embedding-3-small"),
    "anthropic": ("claude-sonnet-4-5", "text-embedding-3-small"),
    "gemini": ("gemini-2.5-flash", "gemini-embedding-001"),
}
#: What the `llm` command sends for a model whose entry names no key, whatever its --key says.
LLM_COMMAND_KEY = "DUMMY_KEY"
_LINE = re.compile(r"(PASS|FAIL|SKIP) (\S+) ?(.*)")


def say(text: str) -> None:
    print(text, flush=True)


def run(command: list[str], **options: Any) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:4])} … failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")


def install() -> None:
    """Install the clients into .bench/clients unless they are there; each environment is made whole or not at all."""
    HOME.mkdir(parents=True, exist_ok=True)
    for name in ("run_clients.py", "fixtures.json"):
        shutil.copyfile(SHARED / name, HOME / name)
    for name, packages in ENVIRONMENTS.items():
        mark = HOME / name / ".installed"
        wanted = hashlib.sha256("\n".join(packages).encode()).hexdigest()
        if mark.exists() and mark.read_text() == wanted:
            continue
        say(f"installing {', '.join(packages[:3])} … into .bench/clients/{name}")
        shutil.rmtree(HOME / name, ignore_errors=True)
        run([sys.executable, "-m", "venv", str(HOME / name)])
        python = str(HOME / name / "bin" / "python")
        run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "uv"])
        run([python, "-m", "uv", "pip", "install", "-q", "--python", python, *packages])
        mark.write_text(wanted)
    node = HOME / "node"
    package = (SHARED / "node" / "package.json").read_bytes()
    node.mkdir(exist_ok=True)
    shutil.copyfile(SHARED / "node" / "run_clients.mjs", node / "run_clients.mjs")
    mark = node / ".installed"
    if shutil.which("npm") and not (mark.exists() and mark.read_bytes() == package):
        say("installing openai-node, the Vercel AI SDK and aimock into .bench/clients/node")
        (node / "package.json").write_bytes(package)
        run(["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"], cwd=node)
        mark.write_bytes(package)


def mock() -> Path:
    """Return aimock's program, whether it is installed or not."""
    return HOME / "node" / "node_modules" / ".bin" / "llmock"


def start_mock(port: int) -> subprocess.Popen[bytes]:
    """Start aimock on ``port``; return once it listens."""
    command = ["node", str(mock()), "-p", str(port), "-h", "127.0.0.1", "-f", str(HOME / "fixtures.json")]
    process = subprocess.Popen([*command, "--log-level", "silent"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    for _ in range(200):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
            connection.request("GET", "/v1/models")
            connection.getresponse().read()
            connection.close()
            return process
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.05)
    process.kill()
    raise SystemExit("aimock did not start")


def settings(vendor: str, port: int, batch_port: int) -> dict[str, Any]:
    """Return an llm.yml with ``vendor`` at aimock, as somebody would write it who moves clients over from OpenAI."""
    model, embeddings = VENDORS[vendor]
    url = f"http://127.0.0.1:{port}"
    common: dict[str, Any] = {
        "api_key": PROVIDER_KEY,
        "max_retries": 0,
        "unsupported": "drop",
        "breaker": {"failures": 1000},
    }
    providers: dict[str, Any] = {
        "openai": {**common, "base_url": f"{url}/v1", "models": ["gpt-*", "text-embedding-*"]},
        "azure_openai": {**common, "azure_endpoint": url},
        "anthropic": {**common, "base_url": url},
        "gemini": {**common, "base_url": url},
    }
    #: Which provider serves the embeddings: Anthropic has none, and aimock lacks Gemini's batches.
    holder = {"anthropic": "openai", "gemini": "gemini_batches"}.get(vendor, vendor)
    providers["gemini_batches"] = {
        **providers["gemini"],
        "kind": "gemini",
        "base_url": f"http://127.0.0.1:{batch_port}",
    }
    providers[vendor]["model"] = model
    common_key = {"team": "platform", "user": "svc", "roles": ["generate"]}
    return {
        "server": {"drain_delay": "0s"},
        "auth": {
            "keys": [
                {"id": "clients", "hash": hash_key(CLIENT_KEY), **common_key},
                {"id": "llm-command", "hash": hash_key(LLM_COMMAND_KEY), **common_key},
            ]
        },
        "default_provider": vendor,
        "providers": {name: providers[name] for name in dict.fromkeys((vendor, holder))},
        "models": {model: f"{vendor}/{model}", embeddings: f"{holder}/{embeddings}"},
    }


def play(command: list[str], environment: dict[str, str]) -> list[tuple[str, str, str]]:
    """Run one set of cases; return (result, case, note) of each."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    found = [(m[1], m[2], m[3]) for line in done.stdout.splitlines() if (m := _LINE.fullmatch(line.strip()))]
    if not found:
        found = [("FAIL", Path(command[1]).name, (done.stderr or done.stdout).strip()[-300:])]
    return found


def vendor_cases(vendor: str, port: int, batch_port: int, only: str | None) -> list[tuple[str, str, str]]:
    """Run all clients against a sidecar with ``vendor`` behind it."""
    sidecar = Sidecar(settings(vendor, port, batch_port))
    try:
        model, embeddings = VENDORS[vendor]
        environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ},
            "BASE_URL": sidecar.base_url, "MODEL": model, "EMBED_MODEL": embeddings, "API_KEY": CLIENT_KEY, "STRICT_AUTH": "1",
        }  # fmt: skip
        if only:
            environment["ONLY"] = only
        found = play([str(HOME / "venv" / "bin" / "python"), str(HOME / "run_clients.py")], environment)
        if (HOME / "node" / "node_modules").exists():
            found += play(["node", str(HOME / "node" / "run_clients.mjs")], environment)
        return found
    finally:
        sidecar.stop()
        sidecar.cleanup()


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Run real OpenAI clients through the sidecar, with each vendor behind it."
    )
    parser.add_argument("--vendor", action="append", choices=sorted(VENDORS), help="only this one (may be repeated)")
    parser.add_argument("--only", help="a regular expression that the cases' names must contain")
    parser.add_argument("--json", help="write every result to this file")
    args = parser.parse_args()
    if not SHARED.is_dir():
        say(f"needs {SHARED}, which is not here; nothing was run")
        return 1
    if not shutil.which("node"):
        say("needs node and npm for the mock server; nothing was run")
        return 1
    install()
    port = free_port()
    process = start_mock(port)
    batches = batch.start(port)
    results: dict[str, list[tuple[str, str, str]]] = {}
    try:
        for vendor in args.vendor or VENDORS:
            results[vendor] = vendor_cases(vendor, port, batches.server_port, args.only)
            counts = count(results[vendor])
            say(f"{vendor:14} {counts['PASS']:3} passed  {counts['FAIL']:3} failed  {counts['SKIP']:3} skipped")
    finally:
        batches.shutdown()
        batches.server_close()
        process.terminate()
        process.wait(5)
    table(results)
    if args.json:
        Path(args.json).write_text(json.dumps(results, indent=1))
    return min(120, sum(count(rows)["FAIL"] for rows in results.values()))


def count(rows: list[tuple[str, str, str]]) -> dict[str, int]:
    return {word: sum(row[0] == word for row in rows) for word in ("PASS", "FAIL", "SKIP")}


def table(results: dict[str, list[tuple[str, str, str]]]) -> None:
    """Print a line for each client and a column for each vendor; then every failure and why cases were skipped."""
    clients = list(dict.fromkeys(case.partition(":")[0] for rows in results.values() for _, case, _ in rows))
    say("\n" + f"{'client':22}" + "".join(f"{vendor:>14}" for vendor in results))
    for client in clients:
        cells = []
        for rows in results.values():
            mine = count([row for row in rows if row[1].partition(":")[0] == client])
            ran = mine["PASS"] + mine["FAIL"]
            cells.append(f"{mine['PASS']}/{ran}" if ran else "-")
        say(f"{client:22}" + "".join(f"{cell:>14}" for cell in cells))
    for word in ("SKIP", "FAIL"):
        rows = [
            (case, vendor, note) for vendor, found in results.items() for result, case, note in found if result == word
        ]
        if rows:
            say("\nskipped:" if word == "SKIP" else "\nfailed:")
        for case, vendor, note in rows:
            say(f"  {vendor:14} {case:34} {note}")


if __name__ == "__main__":
    raise SystemExit(main())
