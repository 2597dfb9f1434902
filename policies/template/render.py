"""Templates in a corner of Jinja's language: variables, conditions, loops and a few filters, nothing else.

No attribute access, no calls, no arithmetic, no imports: what is not in the lists below is refused at load.
What a caller sends is data to a template, never a template. On top of that stands Jinja's own sandbox
(https://jinja.palletsprojects.com/en/stable/sandbox/).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import orjson
from jinja2 import TemplateSyntaxError, nodes
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from proxy.config.problem import did_you_mean, listed
from proxy.errors import ApiError

#: The most characters that one request's templates may come to.
MAX_RENDERED: Final = 1_000_000
_MAX_LOOPS: Final = 2
#: Filter -> how many arguments it takes here; they must be literals.
FILTERS: Final = {
    "capitalize": 0, "default": 1, "first": 0, "indent": 1, "join": 1, "last": 0, "length": 0, "lower": 0, "sort": 0,
    "title": 0, "tojson": 0, "trim": 0, "truncate": 1, "unique": 0, "upper": 0,
}  # fmt: skip
TESTS: Final = ("defined", "none")
_LARGEST_NUMBER: Final = 100_000
_NODES: Final = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.If, nodes.For, nodes.Filter,
    nodes.Test, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.CondExpr, nodes.Concat, nodes.List,
)  # fmt: skip
_WHY: Final[dict[type[nodes.Node], str]] = {
    nodes.Getattr: "a template cannot look into values (`.`)",
    nodes.Getitem: "a template cannot look into values (`[…]`)",
    nodes.Call: "a template cannot call anything",
}


class _Sandbox(ImmutableSandboxedEnvironment):
    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return False

    def is_safe_callable(self, obj: Any) -> bool:
        return False


def _plain(value: Any) -> Any:
    return "true" if value is True else "false" if value is False else value


_SANDBOX: Final = _Sandbox(trim_blocks=True, lstrip_blocks=True, finalize=_plain, autoescape=False, cache_size=0)
_SANDBOX.globals.clear()
_SANDBOX.filters = {name: _SANDBOX.filters[name] for name in FILTERS}
_SANDBOX.filters["tojson"] = lambda value: orjson.dumps(value).decode()
_SANDBOX.tests = {name: _SANDBOX.tests[name] for name in (*TESTS, "in", "eq", "ne", "lt", "le", "gt", "ge")}


class Text:
    """One compiled template. ``names`` are the variables that it reads."""

    __slots__ = ("_template", "names")

    def __init__(self, source: str) -> None:
        """Compile ``source``; raise ValueError, with a sentence, for anything that a prompt has no need of."""
        try:
            tree = _SANDBOX.parse(source)
            _check(tree, 0)
            self.names = frozenset(find_undeclared_variables(tree))
            self._template = _SANDBOX.from_string(tree)
        except TemplateSyntaxError as error:
            raise ValueError(f"this is no template: {error.message} (its line {error.lineno})") from None

    def render(self, values: dict[str, Any], room: int) -> str:
        """Return the text, of at most ``room`` characters.

        Raises:
            ApiError: ``invalid_request`` where it is longer, or the values do not fit the template.
        """
        parts = []
        try:
            for part in self._template.generate(values):
                parts.append(part)
                room -= len(part)
                if room < 0:
                    raise ApiError(
                        "invalid_request",
                        f"The variables make the prompt longer than {MAX_RENDERED:,} characters; shorten them.",
                        param="variables",
                    )
        except ApiError:
            raise
        except Exception as error:
            raise ApiError(
                "invalid_request", f"The variables do not fit the template ({type(error).__name__}).", param="variables"
            ) from None
        return "".join(parts)


def _check(node: nodes.Node, loops: int) -> None:
    """Refuse, with a ValueError, what :data:`_NODES` does not list."""
    kind = type(node)
    line = f" (its line {node.lineno})"
    if kind not in _NODES:
        raise ValueError(_WHY.get(kind, f"a template has no use for `{kind.__name__.lower()}`") + line)
    if isinstance(node, nodes.Filter):
        most = FILTERS.get(node.name)
        if most is None:
            near = did_you_mean(node.name, FILTERS)
            hint = f"did you mean `{near}`?" if near else f"there are {listed(FILTERS, 'and')}"
            raise ValueError(f"there is no filter `{node.name}` here; {hint}{line}")
        arguments = [*node.args, *node.kwargs, *filter(None, (node.dyn_args, node.dyn_kwargs))]
        if len(arguments) > most or not all(_literal(argument) for argument in arguments):
            takes = "no argument" if not most else "one literal argument"
            raise ValueError(f"the filter `{node.name}` takes {takes} here{line}")
    elif isinstance(node, nodes.Test) and (node.name not in TESTS or node.args or node.kwargs):
        raise ValueError(f"there is no test `is {node.name}` here; there are {listed(TESTS, 'and')}{line}")
    elif isinstance(node, nodes.For):
        loops += 1
        if loops > _MAX_LOOPS or node.recursive:
            raise ValueError(f"loops may stand in one other loop, not deeper{line}")
    for child in _children(node):
        _check(child, loops)


def _literal(node: nodes.Node) -> bool:
    """Tell whether an argument is a literal of a size that does no harm."""
    if not isinstance(node, nodes.Const):
        return False
    value = node.value
    return isinstance(value, str) or (type(value) is int and 0 <= value <= _LARGEST_NUMBER)


def _children(node: nodes.Node) -> Iterator[nodes.Node]:
    return node.iter_child_nodes()
