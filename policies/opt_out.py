"""Users and teams that want no language model near their work."""

from __future__ import annotations

import os
from typing import Any, Final

from policies.base import ApiError, Call, Kit, Policy, PolicyConfig

_LOOK_EVERY: Final = 1.0


class OptOutConfig(PolicyConfig):
    """``users`` are names, or ``team/user``; ``file`` holds one ``team:NAME``, ``user:NAME`` or ``user:TEAM/NAME`` a line."""

    teams: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    file: str | None = None


class OptOut(Policy[OptOutConfig]):
    """Refuse every call of a team or user that opted out, here, under ``teams:`` or in a file that may change."""

    Config = OptOutConfig

    def __init__(self, config: OptOutConfig, kit: Kit) -> None:
        super().__init__(config, kit)
        teams, users = set(config.teams), set(config.users)
        self._default = False
        for name, team in kit.teams.items():
            if team.opt_out:
                if name == "default":
                    self._default = True
                teams.add(name)
            users.update(f"{name}/{user}" for user, settings in team.users.items() if settings.opt_out)
        self._teams = frozenset(teams)
        self._users = frozenset(users)
        self._file = os.path.join(kit.folder, config.file) if config.file else None
        self._mark: Any = None
        self._looked = -_LOOK_EVERY
        self._file_teams: frozenset[str] = frozenset()
        self._file_users: frozenset[str] = frozenset()
        if self._file is not None:
            self._mark = self._stat(self._file)
            self._read(self._file)

    async def on_request(self, call: Call) -> None:
        if self._file is not None:
            self._refresh(self._file)
        team, user = call.caller.team, call.caller.user
        if (
            team in self._teams
            or team in self._file_teams
            or (self._default and team not in self.kit.teams)
            or not self._users.isdisjoint((user, f"{team}/{user}"))
            or not self._file_users.isdisjoint((user, f"{team}/{user}"))
        ):
            raise ApiError(
                "opted_out", "This user or team has opted out of language models; ask its owner to opt in again."
            )

    def _refresh(self, path: str) -> None:
        now = self.kit.clock.monotonic()
        if now - self._looked < _LOOK_EVERY:
            return
        self._looked = now
        try:
            mark = self._stat(path)
            if mark != self._mark:
                self._read(path)
                self._mark = mark
        except (OSError, ValueError) as error:
            # Nobody is opted in again because a file cannot be read: the last good list holds.
            if self._mark is not None:
                self.kit.log.error("opt_out_file_unreadable", extra={"fields": {"reason": type(error).__name__}})
            self._mark = None

    @staticmethod
    def _stat(path: str) -> tuple[int, int, int]:
        status = os.stat(path)
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _read(self, path: str) -> None:
        teams: set[str] = set()
        users: set[str] = set()
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                entry = line.partition("#")[0].strip()
                if not entry:
                    continue
                kind, colon, name = entry.partition(":")
                name = name.strip()
                if not colon or kind not in ("team", "user") or not name:
                    raise ValueError(f"{path}:{number}: write team:NAME, user:NAME or user:TEAM/NAME")
                (teams if kind == "team" else users).add(name)
        self._file_teams, self._file_users = frozenset(teams), frozenset(users)

    def warnings(self) -> list[str]:
        """Return a sentence for each team in the file that no caller can be of."""
        known = {"default", *self.kit.teams}
        auth = getattr(self.kit.config, "auth", None)
        if len(known) == 1 or (auth is not None and auth.unknown_team != "refuse"):
            return []
        named = self._file_teams | {
            team for team, slash, _ in (user.partition("/") for user in self._file_users) if slash
        }
        return [f"{self.config.file}: there is no team `{team}` under `teams:`" for team in sorted(named - known)]

    def describe(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"teams": sorted(self._teams), "users": len(self._users)}
        if self._file is not None:
            facts |= {
                "file": self.config.file,
                "file_teams": len(self._file_teams),
                "file_users": len(self._file_users),
            }
        return facts
