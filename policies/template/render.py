"""Templates in a corner of Jinja's language: variables, conditions, loops and a few filters, nothing else.

No attribute access, no calls, no arithmetic, no imports: what is not in the lists below is refused at load.
What a caller sends is data to a template, never a template; how long rendering it may take is counted in steps,
since it holds up everybody else's calls. On top of that stands Jinja's own sandbox
(https://jinja.palletsprojects.com/en/stable/sandbox/).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, cast

import orjson
from jinja2 import TemplateSyntaxError, nodes
from jinja2.meta import find_undeclared_variables
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import pass_context

from proxy.config.problem import did_you_mean, listed
from proxy.errors import ApiError

#: The most characters that one request's templates may come to.
MAX_RENDERED: Final = 1_000_000
#: The most steps that one message may take: a loop's turn is one, and so is an item, or 16 characters, of what a
#: filter or `in` goes through. About a tenth of a second.
MAX_STEPS: Final = 200_000
_MAX_LOOPS: Final = 2
_STEPS: Final = " steps"
#: Filter -> how many arguments it takes here; they must be literals.
FILTERS: Final = {
    "capitalize": 0, "default": 1, "first": 0, "indent": 1, "join": 1, "last": 0, "length": 0, "lower": 0, "sort": 0,
    "title": 0, "tojson": 0, "trim": 0, "truncate": 1, "unique": 0, "upper": 0,
}  # fmt: skip
TESTS: Final = ("defined", "none")
_LARGEST_NUMBER: Final = 100_000
_WIDEST_INDENT: Final = 64
#: Jinja's own objects, which are no variables.
_JINJAS: Final = ("self", "loop", "super", "caller")
_NODES: Final = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.If, nodes.For, nodes.Filter,
    nodes.Test, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.CondExpr, nodes.Concat, nodes.List,
)  # fmt: skip
_WHY: Final[dict[type[nodes.Node], str]] = {
    nodes.Getattr: "a template cannot look into values (`.`)",
    nodes.Getitem: "a template cannot look into values (`[…]`)",
    nodes.Call: "a template cannot call anything",
}


class _TooLong(Exception):
    """The values make the template take too many steps."""


class _Sandbox(ImmutableSandboxedEnvironment):
    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return False

    def is_safe_callable(self, obj: Any) -> bool:
        return False


def _plain(value: Any) -> Any:
    return "true" if value is True else "false" if value is False else value


def _spend(context: Context, steps: int) -> None:
    left = context[_STEPS]
    left[0] -= steps
    if left[0] < 0:
        raise _TooLong


@pass_context
def _turns(context: Context, values: Iterable[Any]) -> Iterator[Any]:
    """Yield ``values``, a step each."""
    for value in values:
        _spend(context, 1)
        yield value


@pass_context
def _weighed(context: Context, value: Any) -> Any:
    """Return ``value``; its size in steps is spent."""
    if isinstance(value, str):
        _spend(context, 1 + (len(value) >> 4))
    elif isinstance(value, list):
        _spend(context, 1 + len(value) + (sum(len(item) for item in value if isinstance(item, str)) >> 4))
    return value


_SANDBOX: Final = _Sandbox(trim_blocks=True, lstrip_blocks=True, finalize=_plain, autoescape=False, cache_size=0)
_SANDBOX.globals.clear()
_SANDBOX.filters = {name: _SANDBOX.filters[name] for name in FILTERS}
_SANDBOX.filters["tojson"] = lambda value: orjson.dumps(value).decode()
_SANDBOX.filters["_turns"], _SANDBOX.filters["_weighed"] = _turns, _weighed  # ours alone: FILTERS lacks them
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
            _count(tree)
            self._template = _SANDBOX.from_string(tree)
        except RecursionError:
            raise ValueError("this template's parts stand too deep in each other") from None
        except TemplateSyntaxError as error:
            raise ValueError(f"this is no template: {error.message} (its line {error.lineno})") from None

    def render(self, values: dict[str, Any], room: int) -> str:
        """Return the text, of at most ``room`` characters.

        Raises:
            ApiError: ``invalid_request`` where it is longer, or the values do not fit the template.
        """
        parts = []
        try:
            for part in self._template.generate({**values, _STEPS: [MAX_STEPS]}):
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
        except _TooLong:
            raise ApiError(
                "invalid_request",
                "The variables make the template go on for too long; send fewer items or less text.",
                param="variables",
            ) from None
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
        if node.name == "indent" and any(_wide(argument) for argument in arguments):
            raise ValueError(f"the filter `indent` takes at most {_WIDEST_INDENT} here{line}")
    elif isinstance(node, nodes.Name) and node.name in _JINJAS:
        raise ValueError(f"there is no `{node.name}` here; a template sees its variables only{line}")
    elif isinstance(node, nodes.Test) and (node.name not in TESTS or node.args or node.kwargs):
        raise ValueError(f"there is no test `is {node.name}` here; there are {listed(TESTS, 'and')}{line}")
    elif isinstance(node, nodes.For):
        loops += 1
        if loops > _MAX_LOOPS or node.recursive:
            raise ValueError(f"loops may stand in one other loop, not deeper{line}")
    for child in _children(node):
        _check(child, loops)


def _count(node: nodes.Node) -> None:
    """Put the counting of steps around whatever takes longer the more a caller sends."""
    for child in list(node.iter_child_nodes()):
        _count(child)
    if isinstance(node, nodes.For):
        node.iter = _through("_turns", cast(nodes.Expr, node.iter))
    elif isinstance(node, nodes.Filter) and node.node is not None:
        node.node = _through("_weighed", node.node)
    elif isinstance(node, nodes.Operand) and node.op in ("in", "notin"):
        node.expr = _through("_weighed", node.expr)


def _through(name: str, inner: nodes.Expr) -> nodes.Filter:
    outer = nodes.Filter(inner, name, [], [], None, None, lineno=inner.lineno)
    outer.environment = inner.environment
    return outer


def _wide(node: nodes.Node) -> bool:
    value = getattr(node, "value", 0)
    return (len(value) if isinstance(value, str) else value) > _WIDEST_INDENT


def _literal(node: nodes.Node) -> bool:
    """Tell whether an argument is a literal of a size that does no harm."""
    if not isinstance(node, nodes.Const):
        return False
    value = node.value
    return isinstance(value, str) or (type(value) is int and 0 <= value <= _LARGEST_NUMBER)


def _children(node: nodes.Node) -> Iterator[nodes.Node]:
    return node.iter_child_nodes()
