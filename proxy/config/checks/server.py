"""``server:``, ``store:`` and ``auth:``: who can reach the sidecar, and as whom."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from proxy.config.checks.scope import Scope, value_at
from proxy.config.problem import Path, key_path, listed


def check(scope: Scope) -> None:
    """Check the listeners, the secret, the store, the client keys and the file's mode."""
    _listeners(scope)
    _store(scope)
    _auth(scope)
    _features(scope)
    _mode(scope)


def _listeners(scope: Scope) -> None:
    server = scope.config.server
    # An `auth:` with nothing below it protects nothing: it is as good as none.
    if scope.config.auth is None and scope.document.tree.get("auth") is None:
        if not server.listen.loopback:
            scope.bad(
                ("server", "listen"),
                f"{server.listen} can be reached from other machines, and there is no `auth:` section; add one with "
                "client keys (`llm-sidecar keys new`), or listen on 127.0.0.1",
            )
        else:
            scope.notes.append(
                f"There is no `auth:` section: everyone who can reach {server.listen} is user `local` of team "
                "`default` with every permission."
            )
    ops = server.ops_listen
    if ops is not None and ops.port and ops.port == server.listen.port:
        scope.bad(("server", "ops_listen"), f"port {ops.port} is `listen`'s already; take another one")


def _store(scope: Scope) -> None:
    server, store = scope.config.server, scope.config.store
    if server.secret is None:
        if store.kind != "memory":
            scope.bad(
                ("store",) if "store" in scope.document.tree else (),
                f"a {store.kind} store needs `server.secret` (or LLM_SIDECAR_SECRET), the same at every start and on "
                "every sidecar; `openssl rand -base64 32` makes a good one",
            )
        else:
            scope.notes.append("There is no `server.secret`: a random one is used until the next start.")
    if store.kind == "sqlite":
        folder = os.path.dirname(store.url.removeprefix("sqlite://"))
        if not os.path.isdir(folder):
            scope.bad(("store",), f"there is no folder {folder} for the database file; create it first")
    if store.kind == "redis":
        from proxy.store.address import parse  # brings hiredis, which no other store needs

        if (ca_file := parse(store.url).ca_file) and store.url.startswith("rediss"):
            scope.authorities(("store",), ca_file)


def _auth(scope: Scope) -> None:
    auth = scope.config.auth
    if auth is None:
        return
    now = datetime.now(UTC)
    ids: dict[str, int] = {}
    credentials: dict[Any, str] = {}
    for i, key in enumerate(auth.keys):
        path = ("auth", "keys", i)
        if key.id in ids:
            scope.bad((*path, "id"), f"`{key.id}` is the id of keys[{ids[key.id]}] already; each key has its own")
        ids.setdefault(key.id, i)
        credential = key.hash or key.key
        if credential in credentials:
            scope.bad(path, f"this is the same key as that of `{credentials[credential]}`; make one of its own")
        credentials.setdefault(credential, key.id)
        for j, role in enumerate(key.roles):
            if role not in auth.roles:
                scope.bad((*path, "roles", j), f"there is no role `{role}`", role, auth.roles)
        if key.expires is not None and key.expires <= now:
            scope.warn((*path, "expires"), f"the key `{key.id}` expired on {key.expires:%Y-%m-%d}; it is refused")
    roles = set(auth.roles)
    if not any(role in roles and "llm:generate" in auth.roles[role] for key in auth.keys for role in key.roles):
        scope.warn(("auth", "keys"), "no key has the permission llm:generate, so nobody can make a call")
    if auth.unknown_team is None:
        # Once teams are listed, a name that is not among them is a mistake or an attempt.
        settled = "refuse" if set(scope.config.teams) - {"default"} else "default"
        scope.config = replace(scope.config, auth=auth.model_copy(update={"unknown_team": settled}))


def _features(scope: Scope) -> None:
    seen: set[str] = set()
    for i, feature in enumerate(scope.config.features):
        if feature == "other":
            scope.bad(("features", i), "`other` is where features that are not listed are counted; take another name")
        if feature in seen:
            scope.bad(("features", i), f"`{feature}` is listed twice; keep one of them")
        seen.add(feature)


def _mode(scope: Scope) -> None:
    """Warn where everyone on the machine can read secrets that stand in the file itself."""
    if not scope.mode & (stat.S_IROTH | stat.S_IWOTH):
        return
    if scope.mode & stat.S_IWOTH:
        scope.warn((), "everyone on this machine can change this file; `chmod o-w` it")
    config = scope.config
    places: list[Path] = [
        *(("providers", name, "api_key") for name in config.providers),
        *(("auth", "keys", i, "key") for i in range(len(config.auth.keys if config.auth else ()))),
        ("server", "secret"),
    ]
    literal = [
        key_path(place)
        for place in places
        if _stands(scope, place) and not any(path[: len(place)] == place for path in scope.expander.touched)
    ]
    if literal:
        scope.warn((), f"everyone on this machine can read the secrets in this file ({listed(literal, 'and')}); "
                   "`chmod 600` it, or name variables with `${NAME}`")  # fmt: skip


def _stands(scope: Scope, place: Path) -> bool:
    node: Any = scope.document.tree
    for step in place:
        node = value_at(node, step)
    return bool(node)
