"""Compiles the wire (fake providers and load generator) on demand into ``.bench/``."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / ".bench"
_HERE = Path(__file__).resolve().parent
_SOURCES = ("wire.c", "wire_upstream.c", "wire_load.c")
_HEADERS = ("wire.h", "wire_replies.h")


class NoCompiler(RuntimeError):
    """There is no gcc."""


def wire() -> Path:
    """Return the compiled program, compiled anew if its source changed.

    Raises:
        NoCompiler: there is no gcc.
    """
    digest = hashlib.sha256(b"".join((_HERE / name).read_bytes() for name in (*_SOURCES, *_HEADERS))).hexdigest()[:12]
    made = HOME / f"wire-{digest}"
    if made.exists():
        return made
    compiler = shutil.which("gcc")
    if compiler is None:
        raise NoCompiler("the benchmark's wire is written in C: install gcc")
    HOME.mkdir(exist_ok=True)
    unfinished = HOME / f"{made.name}.{os.getpid()}"
    sources = [str(_HERE / name) for name in _SOURCES]
    subprocess.run([compiler, "-O2", "-Wall", "-o", str(unfinished), *sources], check=True, timeout=60)
    unfinished.replace(made)
    return made
