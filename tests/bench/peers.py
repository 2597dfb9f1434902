"""Other gateways, installed on demand into ``.bench/peers``, and nginx where the machine has it."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.bench.build import HOME
from tests.bench.contestant import KEY, Contestant
from tests.bench.procs import PROXY_CORE, DidNotStart, Process
from tests.fakes.ports import free_port

PEERS: Final = HOME / "peers"
#: Package and version, from the package indexes that the installers are set up for.
PYTHON_PACKAGES: Final = {
    "rolter": ("rolter==0.1.0",),
    "ferrogw": ("ferrogw==1.5.10",),
    "tensorzero": ("tensorzero==2026.6.0", "openai==3.54.0"),
    "litellm": ("litellm[proxy]==1.106.2",),
}
NODE_PACKAGES: Final = {"portkey": "@portkey-ai/gateway@1.15.2"}
#: Measured by default; the rest, which are many times slower, with `--all`.
USUAL: Final = ("nginx", "rolter", "ferrogw", "tensorzero")
SLOW: Final = ("litellm", "portkey")

_TENSORZERO: Final = """
import asyncio, sys, openai, tensorzero
async def main():
    client = openai.AsyncOpenAI(api_key="none")
    await tensorzero.patch_openai_client(client, config_file=sys.argv[1], async_setup=True)
    print("listening", client.base_url, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


def install(name: str, say: Callable[[str], None]) -> None:
    """Install a peer once.

    Raises:
        DidNotStart: it cannot be installed here.
    """
    folder = PEERS / name
    if name == "nginx" or (folder / ".installed").exists():
        return
    say(f"installing {name} into .bench/peers")
    folder.mkdir(parents=True, exist_ok=True)
    if name in NODE_PACKAGES:
        npm = shutil.which("npm")
        if npm is None or shutil.which("node") is None:
            raise DidNotStart("node and npm are not installed")
        steps = [[npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder), NODE_PACKAGES[name]]]
    else:
        python = str(folder / "bin" / "python")
        pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        steps = [[sys.executable, "-m", "venv", str(folder)], [*pip, *PYTHON_PACKAGES[name]]]
    for step in steps:
        try:
            subprocess.run(step, check=True, capture_output=True, text=True, timeout=900, stdin=subprocess.DEVNULL)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired, OSError) as error:
            printed = str(getattr(error, "stderr", None) or error).strip()
            raise DidNotStart(f"cannot be installed: {printed[-300:]}") from None
    (folder / ".installed").touch()


def start(name: str, upstream: int, home: Path) -> Contestant:
    """Start an installed peer in front of the provider at ``upstream``.

    Raises:
        DidNotStart
    """
    home.mkdir(parents=True, exist_ok=True)
    made = _STARTS[name](upstream, home)
    assert made.process is not None
    try:
        if not made.port:
            made.port = _printed_port(made.process)
        made.started = made.process.wait_for(made.port, "/health", timeout=60)
    except BaseException:
        made.process.stop()
        raise
    return made


def _nginx(upstream: int, home: Path) -> Contestant:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise DidNotStart("nginx is not installed")
    port = free_port()
    file = home / "nginx.conf"
    file.write_text(f"""
daemon off; master_process off; pid {home}/nginx.pid; error_log {home}/nginx.err;
events {{ worker_connections 4096; }}
http {{
  access_log {home}/nginx.access;
  client_body_temp_path {home}/nginx.body; proxy_temp_path {home}/nginx.proxy; fastcgi_temp_path {home}/nginx.fcgi;
  uwsgi_temp_path {home}/nginx.uwsgi; scgi_temp_path {home}/nginx.scgi;
  keepalive_requests 1000000000;
  upstream provider {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    client_body_buffer_size 1m;
    location / {{
      proxy_pass http://provider; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
""")
    command = [program, "-p", str(home), "-c", str(file)]
    return Contestant("nginx", port, Process(command, home / "nginx.log", core=PROXY_CORE))


def _rolter(upstream: int, home: Path) -> Contestant:
    port = free_port()
    file = home / "rolter.toml"
    file.write_text(f"""
[server]
host = "127.0.0.1"
port = {port}
[[providers]]
name = "fake"
kind = "openai_compatible"
api_base = "http://127.0.0.1:{upstream}"
[[routes]]
model = "gpt-4o-mini"
strategy = "round_robin"
[[routes.targets]]
provider = "fake"
model = "gpt-4o-mini"
""")
    command = [str(PEERS / "rolter/bin/rolter"), "gateway", "-c", str(file)]
    return Contestant(
        "rolter", port, Process(command, home / "rolter.log", core=PROXY_CORE, env={"RUST_LOG": "error"}, folder=home)
    )


def _ferrogw(upstream: int, home: Path) -> Contestant:
    port = free_port()
    env = {
        "PORT": str(port), "RATE_LIMIT_RPS": "0", "MASTER_KEY": KEY, "LOG_LEVEL": "error",
        "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream}", "OPENAI_API_KEY": "sk-upstream-0123456789",
    }  # fmt: skip
    command = [str(PEERS / "ferrogw/bin/ferrogw"), "serve"]
    return Contestant("ferrogw", port, Process(command, home / "ferrogw.log", core=PROXY_CORE, env=env, folder=home))


def _tensorzero(upstream: int, home: Path) -> Contestant:
    script, file = home / "gateway.py", home / "tensorzero.toml"
    script.write_text(_TENSORZERO)
    file.write_text(f"""
[models."gpt-4o-mini"]
routing = ["fake"]
[models."gpt-4o-mini".providers.fake]
type = "openai"
model_name = "gpt-4o-mini"
api_base = "http://127.0.0.1:{upstream}/v1/"
api_key_location = "none"
""")
    command = [str(PEERS / "tensorzero/bin/python"), str(script), str(file)]
    process = Process(command, home / "tensorzero.log", core=PROXY_CORE, folder=home)
    path, model = "/openai/v1/chat/completions", "tensorzero::model_name::gpt-4o-mini"
    return Contestant("tensorzero", 0, process, path=path, model=model)


def _litellm(upstream: int, home: Path) -> Contestant:
    port = free_port()
    file = home / "litellm.yaml"
    file.write_text(f"""
model_list:
  - model_name: gpt-4o-mini
    litellm_params: {{model: openai/gpt-4o-mini, api_base: "http://127.0.0.1:{upstream}/v1", api_key: sk-upstream}}
general_settings: {{dangerously_permit_weak_or_unset_master_key: true}}  # a master key needs its database
""")
    env = {"LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    command = [str(PEERS / "litellm/bin/litellm"), "--config", str(file), "--host", "127.0.0.1", "--port", str(port)]
    return Contestant("litellm", port, Process(command, home / "litellm.log", core=PROXY_CORE, env=env, folder=home))


def _portkey(upstream: int, home: Path) -> Contestant:
    port = free_port()
    node = shutil.which("node")
    if node is None:
        raise DidNotStart("node is not installed")
    server = PEERS / "portkey/node_modules/@portkey-ai/gateway/build/start-server.js"
    env = {"TRUSTED_CUSTOM_HOSTS": "127.0.0.1", "NODE_ENV": "production"}
    command = [node, str(server), f"--port={port}", "--headless"]
    headers = f"x-portkey-provider: openai\r\nx-portkey-custom-host: http://127.0.0.1:{upstream}/v1\r\n"
    process = Process(command, home / "portkey.log", core=PROXY_CORE, env=env, folder=home)
    return Contestant("portkey", port, process, headers=headers)


def _printed_port(process: Process) -> int:
    """Return the port of the URL that the process prints once it listens."""
    while process.running and time.monotonic() - process.began < 60:
        with contextlib.suppress(OSError):
            if found := re.search(r"listening http://127\.0\.0\.1:(\d+)", process.log.read_text("utf-8", "replace")):
                return int(found[1])
        time.sleep(0.01)
    raise DidNotStart(process.said())


_STARTS: Final[dict[str, Callable[[int, Path], Contestant]]] = {
    "nginx": _nginx, "rolter": _rolter, "ferrogw": _ferrogw, "tensorzero": _tensorzero, "litellm": _litellm,
    "portkey": _portkey,
}  # fmt: skip
