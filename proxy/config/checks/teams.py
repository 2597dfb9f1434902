"""``teams:``, and teams named elsewhere."""

from __future__ import annotations

from pydantic import BaseModel

from proxy.config.checks.scope import Scope
from proxy.config.globs import complaint, near_miss, unknown_provider
from proxy.config.problem import Path, did_you_mean

#: A team's value → the policy that honours it.
POLICY = {
    "token_quota": "quota",
    "allowed_models": "allowlist",
    "budget_usd": "budget",
    "rate_limit": "rate_limit",
    "opt_out": "opt_out",
}


def check(scope: Scope) -> None:
    """Check that each value has its policy, each glob can match, and each team that is named exists."""
    policies = {name for _, name in scope.listed()}
    for name, team in scope.config.teams.items():
        path: Path = ("teams", name)
        _needed(scope, team, path, policies)
        for i, glob in enumerate(team.allowed_models or ()):
            check_glob(scope, glob, (*path, "allowed_models", i))
        for user, settings in team.users.items():
            _needed(scope, settings, (*path, "users", user), policies)
    for i, key_settings in enumerate(scope.config.auth.keys if scope.config.auth else ()):
        known_team(scope, key_settings.team, ("auth", "keys", i, "team"))


def _needed(scope: Scope, settings: BaseModel, path: Path, policies: set[str]) -> None:
    for key, policy in POLICY.items():
        if key in settings.model_fields_set and policy not in policies:
            scope.bad((*path, key), f"this needs the policy `{policy}`, which is not listed under `policies:`")


def check_glob(scope: Scope, glob: str, path: Path) -> None:
    """Complain about a glob of model names that is none, or that can match nothing."""
    message = complaint(glob)
    if message is not None:
        scope.bad(path, message)
        return
    providers = scope.names("providers")
    if (head := unknown_provider(glob, providers)) is not None:
        near = did_you_mean(head, providers)
        scope.document.add(
            path,
            f"there is no provider `{head}`, so that this matches nothing (a glob with `/` means provider/model)",
            near and near + glob[len(head) :],
        )
        return
    for alias in scope.names("models"):
        if alias != glob and alias.lower() == glob.lower():
            scope.warn(path, f"names are case-sensitive: the alias is `{alias}`")
            return
    if (near := near_miss(glob, _names(scope))) is not None:
        scope.warn(path, "this glob matches no name in this file", near)


def _names(scope: Scope) -> set[str]:
    """Return every model name that the file mentions."""
    config = scope.config
    names = set(scope.names("models"))
    names.update(target.to.partition("/")[2] for route in config.models.values() for target in route.targets)
    for entry in config.providers.values():
        names.update(glob for glob in entry.settings.models if not set(glob) & set("*?["))
        if entry.settings.model:
            names.add(entry.settings.model)
    return names - {""}


def known_team(scope: Scope, team: str, path: Path) -> None:
    """Complain about a team's name that no caller can have."""
    auth = scope.config.auth
    if auth is None and scope.document.tree.get("auth") is not None:
        return  # wrong itself; who calls is not known
    listed = set(scope.names("teams")) - {"default"}
    known = listed | {"default"}
    of_key = path[0] == "auth"
    closed = bool(listed) and (auth is None or auth.unknown_team == "refuse")
    if auth is not None and not of_key and not closed:
        known |= {key.team for key in auth.keys}
    if team in known:
        return
    if closed:
        scope.bad(path, f"there is no team `{team}` under `teams:`", team, known)
    elif auth is None:
        if path[0] == "tests":
            return  # a test may be anybody
        scope.warn(path, f"without `auth:` everyone is of team `default`, so that nobody is of team `{team}`")
    elif not of_key and not any(key.on_behalf for key in auth.keys):
        scope.bad(path, f"no client key is of team `{team}`, so that this matches nobody", team, known)
    elif (near := did_you_mean(team, known - {"default"}, 0.8)) is not None:
        scope.warn(path, f"`{team}` is not listed under `teams:`", near)
