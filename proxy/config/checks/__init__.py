"""What a configuration says across its sections: names that lead nowhere, wrong orders, open doors."""

from __future__ import annotations

from dataclasses import replace

from proxy.config.build import Builder
from proxy.config.checks import environment, limits, models, policies, providers, server, teams, tests
from proxy.config.checks.scope import Scope
from proxy.config.model import Config


def check(config: Config, builder: Builder, mode: int) -> Config:
    """Return ``config`` settled, with its warnings and notes; mistakes are noted in the document.

    ``mode`` is the file's, 0 where there is none.
    """
    scope = Scope(config, builder, mode)
    for part in (environment, server, providers, models, teams, policies, limits, tests):
        part.check(scope)
    return replace(scope.config, warnings=tuple(scope.warnings), notes=tuple(scope.notes))
