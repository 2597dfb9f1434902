"""Read a configuration: from llm.yml, or from the environment alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from proxy.config import checks, environment, plugins
from proxy.config.build import Builder
from proxy.config.document import MAX_BYTES, Document, read
from proxy.config.dotenv import FILES as DOTENV_FILES
from proxy.config.dotenv import environment as with_dotenv
from proxy.config.model import Address, Config, parse_address
from proxy.config.problem import ConfigError, Problem

SYSTEM_PATH: Final = "/etc/llm-sidecar/llm.yml"
PATH_VARIABLE: Final = "LLM_SIDECAR_CONFIG"


def find(path: str | None, environ: Mapping[str, str], cwd: str) -> str | None:
    """Return the file to read: ``path``, LLM_SIDECAR_CONFIG, ./llm.yml, /etc/llm-sidecar/llm.yml; None for none."""
    named = path or environ.get(PATH_VARIABLE)
    if named:
        return os.path.join(cwd, named)
    for candidate in (os.path.join(cwd, "llm.yml"), SYSTEM_PATH):
        if os.path.exists(candidate):
            return candidate
    return None


def load(
    path: str | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: str | None = None,
    *,
    listen: Address | str | None = None,
) -> Config:
    """Return the checked configuration.

    ``path`` is the file (None: the contract's rule, ending in the environment alone); ``environ`` the
    process's variables; ``cwd`` where ``.env.llm``, ``.env`` and ``llm.yml`` are looked for; ``listen``
    stands in for ``server.listen`` (``serve --host --port``); either half may be missing: ``:9000``.

    Raises:
        ConfigError: with every mistake at once.
    """
    cwd = os.getcwd() if cwd is None else cwd
    variables = with_dotenv(os.environ if environ is None else environ, cwd)
    file = find(path, variables, cwd)
    if file is None:
        document, folder, mode = environment.document(variables), cwd, 0
    else:
        document, folder, mode = _read(file, cwd)
    files = [os.path.join(cwd, name) for name in DOTENV_FILES]
    return _load(document, variables, folder, mode, listen, files if file is None else [file, *files])


def load_text(
    text: str | bytes,
    environ: Mapping[str, str] | None = None,
    folder: str | None = None,
    file: str = "llm.yml",
    *,
    listen: Address | str | None = None,
) -> Config:
    """Return the checked configuration in ``text``; for tests and embedding, reads no ``.env`` files."""
    folder = os.getcwd() if folder is None else folder
    return _load(read(text, file), {} if environ is None else environ, folder, 0, listen)


def _read(file: str, cwd: str) -> tuple[Document, str, int]:
    shown = os.path.relpath(file, cwd) if file.startswith(cwd.rstrip(os.sep) + os.sep) else file
    try:
        with open(file, "rb") as handle:
            data = handle.read(MAX_BYTES + 1)
            status = os.fstat(handle.fileno())
    except OSError as error:
        raise ConfigError([Problem(shown, 0, "", f"the file cannot be read ({error.strerror})")]) from None
    if len(data) > MAX_BYTES:
        raise ConfigError(
            [Problem(shown, 0, "", f"the file is {status.st_size / (1 << 20):.1f} MiB; at most 1 MiB is read")]
        )
    return read(data, shown), os.path.dirname(os.path.abspath(file)), status.st_mode


def _load(
    document: Document,
    variables: Mapping[str, str],
    folder: str,
    mode: int,
    listen: Address | str | None,
    files: Sequence[str] = (),
) -> Config:
    if document.expands:
        for name in plugins.shadowing(folder):
            document.add((), f"the folder `{name}` beside this file hides llm-sidecar's own package; rename it")
        plugins.add_folder(folder)
    builder = Builder(document, variables, folder)
    config = builder.build()
    if listen is not None:
        address = _address(listen, config.server.listen)
        config = replace(config, server=config.server.model_copy(update={"listen": address}))
    config = checks.check(config, builder, mode)
    config = replace(config, files=(*files, *sorted(builder.expander.files)))
    if document.problems:
        raise ConfigError(sorted(document.problems, key=lambda p: (p.file, p.line)))
    return config


def _address(listen: Address | str, configured: Address) -> Address:
    """Return ``listen``, its missing host or port taken from the configuration (``:9000``, ``0.0.0.0:``)."""
    if isinstance(listen, Address):
        return listen
    host, _, port = listen.rpartition(":")
    try:
        return parse_address(f"{host or _host(configured)}:{port or configured.port}")
    except ValueError as error:
        raise ConfigError([Problem("command line", 0, "--host, --port", str(error))]) from None


def _host(address: Address) -> str:
    return f"[{address.host}]" if ":" in address.host else address.host


__all__ = ["ConfigError", "Problem", "find", "load", "load_text"]
