"""Variables that configure the sidecar where there is no file, and mean nothing beside one."""

from __future__ import annotations

from proxy.config.checks.scope import Scope
from proxy.config.environment import ALONE
from proxy.config.problem import listed


def check(scope: Scope) -> None:
    """Warn of a variable that the file does not name: who set LLM_RATE_LIMIT believes that calls are limited."""
    if not scope.document.expands:
        return
    expander = scope.expander
    idle = [name for name in ALONE if expander.environ.get(name, "").strip() and name not in expander.asked]
    if idle:
        one = len(idle) == 1
        scope.warn(
            (),
            f"{listed(idle, 'and')} {'is' if one else 'are'} set in the environment but {'counts' if one else 'count'} only "
            f"where there is no file; write what {'it says' if one else 'they say'} here, if only as `${{{idle[0]}}}`",
        )
