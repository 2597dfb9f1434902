"""``policies:``: listed once, in an order that works, with what they need."""

from __future__ import annotations

from policies import registry
from proxy.config.checks.scope import Scope
from proxy.config.checks.teams import check_glob, known_team
from proxy.config.problem import Path, did_you_mean, listed


def check(scope: Scope) -> None:
    """Check the list as a whole, then the names inside the built-in policies' settings."""
    _once(scope)
    _order(scope)
    _names(scope)


def _once(scope: Scope) -> None:
    seen: dict[str, int] = {}
    for path, name in scope.listed():
        line = scope.document.line(path)
        if name in seen:
            scope.bad(path, f"the policy stands already in line {seen[name]}; keep one of them")
        seen.setdefault(name, line)


def _order(scope: Scope) -> None:
    position: dict[str, int] = {}
    for i, (_, name) in enumerate(scope.listed()):
        position.setdefault(name, i)
    for name, cls in scope.classes.items():
        path = next(path for path, found in scope.listed() if found == name)
        above = {*cls.after, *(other for other, c in scope.classes.items() if cls.after_changes and c.changes_request)}
        below = sorted((other for other in above if position.get(other, -1) > position[name]), key=position.__getitem__)
        if below:
            recommended = [other for other in registry.ORDER if other in position]
            scope.bad(
                path,
                f"`{name}` must stand below {listed(below, 'and')}; the recommended order is {', '.join(recommended)}",
            )
        settings = scope.settings(path)
        for other in cls.requires:
            if other not in position and settings.get("unsanitized") is not True:
                way_out = ", or set `unsanitized: true`" if "unsanitized" in cls.Config.model_fields else ""
                scope.bad(path, f"`{name}` needs the policy `{other}`; list it above{way_out}")


def _names(scope: Scope) -> None:
    if (found := scope.policy("opt_out")) is not None:
        path, entry = found
        for i, team in enumerate(getattr(entry.config, "teams", ())):
            known_team(scope, team, (*path, "teams", i))
        for i, user in enumerate(getattr(entry.config, "users", ())):
            team, slash, name = user.partition("/")
            if slash and not (team and name):
                scope.bad((*path, "users", i), "a user is a name, or `team/user`")
            elif slash:
                known_team(scope, team, (*path, "users", i))
    if (found := scope.policy("rollout")) is not None:
        path, entry = found
        for name, feature in dict(getattr(entry.config, "features", {})).items():
            _feature(scope, name, (*path, "features", name))
            for i, team in enumerate(getattr(feature, "teams", ())):
                known_team(scope, team, (*path, "features", name, "teams", i))
    if (found := scope.policy("allowlist")) is not None:
        path, entry = found
        globs = getattr(entry.config, "models", ())
        wrong = any(place[: len(path)] == path for place in scope.expander.broken)
        if not globs and not wrong and not any(team.allowed_models for team in scope.config.teams.values()):
            scope.bad(path, "this list lets no model pass; give `models`, such as `models: [gpt-4o*]`")
        for i, glob in enumerate(globs):
            check_glob(scope, glob, (*path, "models", i))


def _feature(scope: Scope, name: str, path: Path) -> None:
    features = scope.config.features
    if name not in features:
        near = did_you_mean(name, features)
        hint = "" if near else "; list it there"
        scope.document.add(path, f"`{name}` is not listed under `features:`, so that no call can be of it{hint}", near)
