"""The policy: fills in the template that a request names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, ClassVar

from policies.base import Call, ChunkFilter, Kit, Policy
from policies.template.config import Message, TemplateConfig, TemplateSettings, known
from policies.template.post import PostFilter
from policies.template.render import MAX_RENDERED, Text
from policies.template.variables import settle
from proxy.config.document import read
from proxy.config.problem import ConfigError, did_you_mean, listed
from proxy.config.validate import Validator
from proxy.errors import bad
from proxy.request import MAX_MESSAGES

_BOUNDS = ("max_tokens", "max_completion_tokens")


class Prepared:
    """One template, its files read and its texts compiled."""

    __slots__ = ("messages", "settings")

    def __init__(self, settings: TemplateSettings) -> None:
        self.settings = settings
        self.messages = [(message.role, Text(message.content or "")) for message in settings.messages]


class Template(Policy[TemplateConfig]):
    """Replace ``template`` and ``variables`` of a request by the template's messages and default parameters.

    Messages sent along come after the template's: an exchange goes on from the prompt. The caller's own
    parameters go before the template's, and those before user, team and provider.
    """

    Config = TemplateConfig
    changes_request: ClassVar[bool] = True

    def __init__(self, config: TemplateConfig, kit: Kit) -> None:
        super().__init__(config, kit)
        folder = kit.folder or "."
        self._templates = {name: Prepared(_load(name, one, folder)) for name, one in config.templates.items()}

    async def on_request(self, call: Call) -> None:
        request = call.request
        body = request.body
        if "template" not in body and "variables" not in body:
            return
        name, given = body.pop("template", None), body.pop("variables", None)
        request.touch()
        if name is None:
            if given is not None:
                bad("`variables` fill in a template; name one in `template`.", "template")
            return
        if request.endpoint != "chat":
            bad("A template makes chat messages; send it to /v1/chat/completions.", "template")
        template = self._templates.get(name)
        if template is None:
            near = did_you_mean(name, self._templates)
            hint = f"did you mean `{near}`?" if near else f"there are {listed(sorted(self._templates), 'and')}."
            bad(f"There is no template `{name[:64]}`; {hint}", "template")
        settings = template.settings
        values = settle(settings.variables, given or {}, name)
        messages, room = [], MAX_RENDERED
        for role, text in template.messages:
            content = text.render(values, room)
            room -= len(content)
            if content.strip():
                messages.append({"role": role, "content": content})
        if not messages:
            bad(f"With these variables the template `{name}` says nothing.", "variables")
        messages += body["messages"]
        if len(messages) > MAX_MESSAGES:
            bad(f"`messages` and the template's come to {len(messages)}; at most {MAX_MESSAGES} are taken.", "messages")
        body["messages"] = messages
        request.size += MAX_RENDERED - room
        if settings.parameters:
            self._parameters(call, settings.parameters)
        call.log["template"] = name
        call.notes[self.name] = template

    @staticmethod
    def _parameters(call: Call, own: dict[str, Any]) -> None:
        """Put the template's defaults before those of user and team."""
        others = call.notes.get("parameters") or {}
        if any(name in own for name in _BOUNDS):
            others = {name: value for name, value in others.items() if name not in _BOUNDS}
        call.notes["parameters"] = {**others, **own}

    def on_reply(self, call: Call) -> ChunkFilter | None:
        template: Prepared | None = call.notes.get(self.name)
        if template is None:
            return None
        post = template.settings.post
        return PostFilter(post) if post.strip or post.max_chars is not None else None

    # --- what it says of itself -----------------------------------------------------------------------------
    def fingerprint(self) -> Any:
        return {name: one.settings.model_dump(mode="json", warnings=False) for name, one in self._templates.items()}

    def describe(self) -> dict[str, Any]:
        return {name: {"variables": sorted(one.settings.variables)} for name, one in self._templates.items()}

    def warnings(self) -> Sequence[str]:
        found = []
        for name, one in self._templates.items():
            read_by = frozenset[str]().union(*(text.names for _, text in one.messages))
            unread = sorted(one.settings.variables.keys() - read_by)
            if unread:
                found.append(f"the template `{name}` never uses {listed(unread, 'and')}")
        return found


def _load(name: str, settings: TemplateSettings, folder: str) -> TemplateSettings:
    """Return ``settings`` with what they take from files.

    Raises:
        ValueError: a file cannot be read, or is no template.
    """
    if settings.file is not None:
        document = read(_text(settings.file, folder), settings.file)
        found: Any = Validator(document, set(), set(), set()).validate(TemplateSettings, document.tree, ())
        if document.problems:
            raise ValueError(f"the template `{name}`: {ConfigError(document.problems)}")
        if found.file is not None:
            raise ValueError(f"the template `{name}`: {settings.file} names a file itself; one is enough")
        settings = found
    if not any(message.file is not None for message in settings.messages):
        return settings
    messages = []
    for message in settings.messages:
        if message.file is not None:
            try:
                content = _text(message.file, folder)
                known(Text(content), settings.variables)
            except ValueError as error:
                raise ValueError(f"the template `{name}`, {message.file}: {error}") from None
            message = Message(role=message.role, content=content)
        messages.append(message)
    return settings.model_copy(update={"messages": tuple(messages)})


def _text(path: str, folder: str) -> str:
    try:
        with open(os.path.join(folder, path), encoding="utf-8-sig") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ValueError(f"the file {path} cannot be read: {reason}") from None
