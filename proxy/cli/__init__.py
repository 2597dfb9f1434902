"""The commands of ``llm-sidecar``: one module each, imported when it is called for.

A command's module has ``register(subparsers)``, light to import, and ``run(args) -> int``, which imports
what it needs.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any, Final

COMMANDS: Final = ("serve", "check", "test", "explain", "schema", "cost", "usage", "keys", "flush")
"""In the order of the help."""

_DESCRIPTION: Final = "A reverse proxy that speaks the OpenAI API and keeps to the rules of one file, llm.yml."
_EPILOG: Final = """\
examples:
  llm-sidecar serve                        serve ./llm.yml on 127.0.0.1:8080
  llm-sidecar check                        say what llm.yml does, or every mistake in it
  llm-sidecar explain request.json         show what each policy would do, sending nothing
  llm-sidecar COMMAND --help               more about one command

The configuration is --config, else $LLM_SIDECAR_CONFIG, ./llm.yml, /etc/llm-sidecar/llm.yml, else the
environment alone (OPENAI_API_KEY is enough). .env.llm and .env in the working directory are read.
Exit codes: 0 fine, 1 mistakes found or something failed, 2 wrong usage.
"""


def run(argv: Sequence[str]) -> int:
    """Run the command that ``argv`` names; return its exit code."""
    from proxy.cli.output import standard_streams

    with standard_streams() as (out, err):
        try:
            try:
                code = _run(argv)
            finally:
                out.flush()  # of `--help` too, which ends here by SystemExit
        except KeyboardInterrupt:
            return 130
        except (OSError, SystemExit):
            if out.error is None:
                raise
        finally:
            for stream in (out, err):
                if stream.error is not None:
                    stream.abandon()
        if out.error is not None:
            return _lost(out.error, argv)
    # What was to be said on standard error may matter, and nothing can say so.
    return code if err.error is None else code or 1


def _run(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    module = importlib.import_module(f"proxy.cli.{args.command}")
    code: int = module.run(args)
    return code


def _lost(error: OSError, argv: Sequence[str]) -> int:
    """Return the exit code of a command whose output could not be written, and say so where somebody may read it."""
    from proxy.cli.output import BROKEN_PIPE

    if isinstance(error, BrokenPipeError):
        return BROKEN_PIPE  # whoever read our output has had enough (`| head`)
    command = f" {argv[0]}" if argv and argv[0] in COMMANDS else ""
    print(f"llm-sidecar{command}: standard output cannot be written ({error.strerror})", file=sys.stderr)
    return 1


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    from proxy import __version__

    top = argparse.ArgumentParser(
        prog="llm-sidecar",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"llm-sidecar {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        if name == "serve":
            _register_serve(commands)
        else:
            importlib.import_module(f"proxy.cli.{name}").register(commands)
    return top


def add(commands: Any, name: str, help: str, epilog: str = "", *, config: bool = True) -> argparse.ArgumentParser:
    """Return the parser of a new command, with ``--config`` unless told otherwise."""
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help,
        description=f"{help[:1].upper()}{help[1:]}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if config:
        command.add_argument(
            "--config", metavar="FILE", help="the configuration (default: $LLM_SIDECAR_CONFIG, ./llm.yml, …)"
        )
    return command


def _register_serve(commands: Any) -> None:
    # Here, because serve.py imports the whole server.
    command = add(commands, "serve", "run the proxy", "example:\n  llm-sidecar serve --config llm.yml --port 9000")
    command.add_argument("--host", metavar="HOST", help="listen there instead of server.listen's host")
    command.add_argument("--port", metavar="PORT", type=int, help="listen there instead of server.listen's port")
