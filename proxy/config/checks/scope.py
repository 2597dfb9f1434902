"""What the checks share: the configuration so far, and where to put mistakes, warnings and notes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from proxy.config.build import Builder
from proxy.config.model import Config, PolicyEntry
from proxy.config.problem import Path, did_you_mean
from proxy.upstream.tls import client_context


class Scope:
    """One configuration under check."""

    def __init__(self, config: Config, builder: Builder, mode: int) -> None:
        self.config = config
        self.document = builder.document
        self.expander = builder.expander
        self.classes = builder.classes
        self.mode = mode
        self.warnings: list[str] = []
        self.notes: list[str] = []

    def names(self, section: str) -> list[str]:
        """Return the names under ``providers:``, ``teams:`` or ``models:``, also of entries with mistakes."""
        raw = self.document.tree.get(section)
        return list(raw) if type(raw) is dict else []

    def bad(self, path: Path, message: str, word: str | None = None, known: Iterable[str] = ()) -> None:
        """Note a mistake; ``word`` is looked for among ``known`` for a suggestion."""
        self.document.add(path, message, None if word is None else did_you_mean(word, known))

    def authorities(self, path: Path, file: str) -> None:
        """Note a mistake unless ``file`` holds certificates to trust: no connection could be made, at every call anew."""
        if not os.path.isfile(file):
            self.bad(path, f"there is no file {file}")
            return
        try:
            client_context(ca_file=file)
        except ValueError as error:
            self.bad(path, str(error).removeprefix("tls.ca_file "))

    def warn(self, path: Path, message: str, suggestion: str | None = None) -> None:
        """Note what loads but deserves a look."""
        text = str(self.document.problem(path, message, suggestion))
        if text not in self.warnings:
            self.warnings.append(text)

    def listed(self) -> list[tuple[Path, str]]:
        """Return path and name of every entry under ``policies:``, usable or not."""
        raw: Any = self.document.tree.get("policies")
        result: list[tuple[Path, str]] = []
        for i, item in enumerate(raw if type(raw) is list else ()):
            if type(item) is str:
                result.append((("policies", i), item))
            elif type(item) is dict and len(item) == 1:
                (name,) = item
                result.append((("policies", i, name), name))
        return result

    def settings(self, path: Path) -> dict[str, Any]:
        """Return what stands in the file at ``path``; empty where that is no mapping."""
        node: Any = self.document.tree
        for step in path:
            node = value_at(node, step)
        return node if type(node) is dict else {}

    def policy(self, name: str) -> tuple[Path, PolicyEntry] | None:
        """Return the path and entry of a listed, usable policy."""
        entry = self.config.policy(name)
        if entry is None:
            return None
        return next((path for path, found in self.listed() if found == name), ("policies",)), entry


def value_at(node: Any, step: str | int) -> Any:
    """Return what a mapping or list holds at one key or index, None where there is nothing."""
    if type(node) is dict:
        return node.get(step)
    if type(node) is list and type(step) is int and step < len(node):
        return node[step]
    return None
