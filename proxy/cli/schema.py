"""`llm-sidecar schema`: the JSON Schema of llm.yml, for editors."""

from __future__ import annotations

import argparse
import json
from typing import Any

from proxy.cli import add

_EPILOG = """\
examples:
  llm-sidecar schema > llm.schema.json
  # then, in the first line of llm.yml, for editors with the YAML language server:
  # yaml-language-server: $schema=./llm.schema.json
"""


def register(commands: Any) -> None:
    """Add the command."""
    add(commands, "schema", "print the JSON Schema of llm.yml", _EPILOG, config=False)


def run(args: argparse.Namespace) -> int:
    """Print the schema."""
    from proxy.config.schema import schema

    print(json.dumps(schema(), indent=2, ensure_ascii=False))
    return 0
