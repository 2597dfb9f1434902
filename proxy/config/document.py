"""llm.yml as text → plain values, with the line of every key.

YAML is read from the parser's events, not through a loader's constructors: nothing in a file can make an
object. Scalars follow the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema) without
octal and hexadecimal numbers, infinities and NaN; digits may be grouped with ``_``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from proxy.config.problem import ConfigError, Path, Problem, key_path

MAX_BYTES: Final = 1 << 20
MAX_VALUES: Final = 30_000
MAX_DEPTH: Final = 40

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULL: Final = frozenset(("", "~", "null", "Null", "NULL"))
_BOOL: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT: Final = re.compile(r"[-+]?[0-9](?:_?[0-9])*")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9](?:_?[0-9])*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_TAG: Final = "tag:yaml.org,2002:"


def scalar(text: str) -> Any:
    """Return the value of an unquoted scalar."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    # A number longer than any limit we know stays text and is refused where a number is wanted.
    if len(text) <= 40:
        if _INT.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text):
            number = float(text)
            return number if math.isfinite(number) else text
    return text


@dataclass(slots=True)
class Document:
    """A parsed file: plain values, lines by path, and the mistakes that did not stop the reading."""

    file: str
    tree: dict[str, Any]
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    names: dict[Path, str] = field(default_factory=dict)
    """For a configuration from the environment: the variable behind a path."""
    expands: bool = True
    """Whether ``${…}`` in its scalars is to be expanded."""

    def line(self, path: Path) -> int:
        """Return the line of ``path``, or of the nearest key above it; 0 where there is none."""
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path[:-1]
        return 0

    def add(self, path: Path, message: str, suggestion: str | None = None) -> None:
        """Note a mistake at ``path``."""
        problem = self.problem(path, message, suggestion)
        if problem not in self.problems:
            self.problems.append(problem)

    def problem(self, path: Path, message: str, suggestion: str | None = None) -> Problem:
        """Return a mistake at ``path`` with its file and line."""
        step = path
        while step and self.names:
            if step in self.names:
                return Problem(self.file, 0, self.names[step], message, suggestion)
            step = step[:-1]
        return Problem(self.file, self.line(path), key_path(path), message, suggestion)


class _Node:
    __slots__ = ("items", "kind", "line", "open", "text", "value")

    def __init__(self, kind: str, line: int, value: Any = None, text: str = "") -> None:
        self.kind = kind
        self.line = line
        self.value = value
        self.text = text
        self.items: Any = None if kind == "scalar" else []
        self.open = kind != "scalar"


def read(text: str | bytes, file: str) -> Document:
    """Parse one YAML document.

    Raises:
        ConfigError: the text is no YAML, too large, too deep, or holds what a configuration has no use for.
    """
    if len(text) > MAX_BYTES:
        size = len(text) / (1 << 20)
        raise _stop(file, 0, f"the file is {size:.1f} MiB; a configuration may have at most 1 MiB")
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = bytes(error.object[: error.start]).count(b"\n") + 1
            raise _stop(file, line, "the file is not UTF-8; save it in that encoding") from None
    root = _compose(text, file)
    document = Document(file, {})
    if root is None:
        return document
    if root.kind != "map":
        raise _stop(file, root.line, "the file must hold keys with values, such as `default_provider: openai`")
    document.tree = _Builder(document).build(root, ())
    return document


def _stop(file: str, line: int, message: str) -> ConfigError:
    return ConfigError([Problem(file, line, "", message)])


def _compose(text: str, file: str) -> _Node | None:
    """Return the tree of nodes; aliases share the node of their anchor."""
    root: _Node | None = None
    stack: list[_Node] = []
    anchors: dict[str, _Node] = {}
    count = 0
    for event in _events(text, file):
        kind = type(event)
        if kind is yaml.ScalarEvent:
            line = event.start_mark.line + 1
            node = _Node("scalar", line, _scalar_value(event, file, line), event.value)
        elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            stack.pop().open = False
            continue
        elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
            line = event.start_mark.line + 1
            word = "map" if kind is yaml.MappingStartEvent else "seq"
            if event.tag not in (None, "!", f"{_TAG}{word}"):
                raise _tagged(file, line, event.tag)
            node = _Node(word, line)
        elif kind is yaml.AliasEvent:
            line = event.start_mark.line + 1
            node = _aliased(anchors, event.anchor, file, line)
        elif kind is yaml.DocumentStartEvent and root is not None:
            raise _stop(file, event.start_mark.line + 1, "the file holds more than one document; remove the `---`")
        else:
            continue
        count += 1
        if count > 2 * MAX_VALUES:
            raise _stop(file, line, f"the file holds more than {MAX_VALUES:,} values")
        if stack:
            stack[-1].items.append((node, line))
        else:
            root = node
        if kind is yaml.AliasEvent:
            continue
        if event.anchor:
            anchors[event.anchor] = node
        if node.open:
            stack.append(node)
            if len(stack) > MAX_DEPTH:
                raise _stop(file, line, f"the file is nested deeper than {MAX_DEPTH} levels")
    return root


def _aliased(anchors: dict[str, _Node], name: Any, file: str, line: int) -> _Node:
    found = anchors.get(str(name))
    if found is None:
        raise _stop(file, line, f"`*{name}` has no anchor `&{name}` above it")
    if found.open:
        raise _stop(file, line, f"`*{name}` stands inside its own anchor")
    return found


def _events(text: str, file: str) -> Iterator[Any]:
    try:
        yield from yaml.parse(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 0
        raise _stop(file, line, _syntax(text, line, error)) from None
    except yaml.YAMLError as error:
        position = getattr(error, "position", None)
        line = text[:position].count("\n") + 1 if isinstance(position, int) else 0
        raise _stop(file, line, "the file holds a control character, which YAML does not allow") from None


def _syntax(text: str, line: int, error: yaml.MarkedYAMLError) -> str:
    lines = text.splitlines()
    here = lines[line - 1] if 0 < line <= len(lines) else ""
    column = error.problem_mark.column if error.problem_mark else 0
    problem = str(error.problem or "").replace("this context", "this place")
    if "flow" in str(error.context) and (match := re.search(r"(?<!\")\$\{[^}]*\}", here)):
        return f'inside {{ }} and [ ] an expansion must be quoted: write "{match[0]}"'
    if "flow" in str(error.context):
        start = error.context_mark.line + 1 if error.context_mark else line
        bracket = "{" if "mapping" in str(error.context) else "["
        return f"the `{bracket}` of line {start} is not closed, or a comma is missing"
    if "\t" in here[: max(column, len(here) - len(here.lstrip())) + 1]:
        return "the line is indented with a tab; YAML takes spaces only"
    if "mapping values are not allowed" in problem:
        return "a `:` stands where no key can be; mind the indentation, or quote the value that holds `: `"
    if "cannot start any token" in problem and column < len(here):
        return f"a value cannot begin with `{here[column]}`; quote it"
    if "unexpected end of stream" in problem:
        return "a quotation mark is not closed"
    return f"this is not valid YAML: {problem}"


def _scalar_value(event: yaml.ScalarEvent, file: str, line: int) -> Any:
    tag = event.tag
    if tag is None or tag == "!":
        return scalar(event.value) if event.implicit[0] and tag is None else event.value
    if tag == f"{_TAG}str":
        return event.value
    if tag in (f"{_TAG}int", f"{_TAG}float", f"{_TAG}bool", f"{_TAG}null"):
        return scalar(event.value)
    raise _tagged(file, line, tag)


def _tagged(file: str, line: int, tag: str) -> ConfigError:
    shown = tag.replace(_TAG, "!!")
    return _stop(file, line, f"the tag `{shown}` is not allowed; a configuration holds plain values only")


class _Builder:
    """Turn nodes into values, aliases copied out, within :data:`MAX_VALUES`."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.count = 0

    def build(self, node: _Node, path: Path) -> Any:
        self.count += 1
        if self.count > MAX_VALUES:
            raise _stop(
                self.document.file, node.line, f"with its aliases the file holds more than {MAX_VALUES:,} values"
            )
        if len(path) > MAX_DEPTH:
            raise _stop(self.document.file, node.line, f"with its aliases the file is deeper than {MAX_DEPTH} levels")
        if node.kind == "scalar":
            return node.value
        lines = self.document.lines
        if node.kind == "seq":
            values = []
            for i, (item, line) in enumerate(node.items):
                lines[(*path, i)] = line
                values.append(self.build(item, (*path, i)))
            return values
        pairs = [(key, line, value) for (key, line), (value, _) in zip(node.items[::2], node.items[1::2], strict=True)]
        result: dict[str, Any] = {}
        # `<<` first: what the mapping says itself comes later and wins, values and lines alike.
        for key, line, value in pairs:
            if key.text == "<<":
                for source in reversed(self._sources(value, line)):
                    result.update(self.build(source, path))
        seen: dict[str, int] = {}
        for key, line, value in pairs:
            name = key.text
            if name == "<<":
                continue
            if key.kind != "scalar" or not name:
                self._note(path, line, "a key must be a plain word; quote it")
            elif name in seen:
                self._note((*path, name), line, f"the key stands already in line {seen[name]}; keep one of them")
            else:
                seen[name] = line
                lines[(*path, name)] = line
                result[name] = self.build(value, (*path, name))
        return result

    def _note(self, path: Path, line: int, message: str) -> None:
        self.document.problems.append(Problem(self.document.file, line, key_path(path), message))

    def _sources(self, value: _Node, line: int) -> list[_Node]:
        sources = [item for item, _ in value.items] if value.kind == "seq" else [value]
        if any(source.kind != "map" for source in sources):
            raise _stop(self.document.file, line, "`<<` takes the alias of a mapping, or a list of such")
        return sources
