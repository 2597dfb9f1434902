"""The settings of `template`, and of a template in a file of its own."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from policies.base import PolicyConfig
from policies.template.render import Text
from policies.template.variables import Variable
from proxy.config.parameters import Parameters
from proxy.config.problem import did_you_mean, listed
from proxy.providers.base import Strict

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]


class Message(Strict):
    """One message of a prompt; its text stands here or in a file beside llm.yml."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | None = None
    file: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Message:
        if (self.content is None) == (self.file is None):
            raise ValueError("a message needs `content` or `file`, one of them")
        if self.content is not None:
            Text(self.content)
        return self


class Post(Strict):
    """What is done to the answer's text: white space around it taken off, then cut to a length."""

    strip: bool = False
    max_chars: int | None = Field(None, ge=1)
    ellipsis: Annotated[str, StringConstraints(max_length=16)] = "..."
    """Takes the place of what is cut, within ``max_chars``."""

    @model_validator(mode="after")
    def _fits(self) -> Post:
        if self.max_chars is not None and len(self.ellipsis) >= self.max_chars:
            raise ValueError("the ellipsis leaves no room within `max_chars`; shorten it")
        return self


class TemplateSettings(Strict):
    """One template, here or in the file named (YAML with these keys, beside llm.yml)."""

    file: str | None = None
    description: str | None = None
    messages: tuple[Message, ...] = ()
    variables: dict[VariableName, Variable] = {}
    parameters: Parameters = {}
    post: Post = Post()

    @model_validator(mode="after")
    def _whole(self) -> TemplateSettings:
        if self.file is not None:
            if self.model_fields_set - {"file"}:
                raise ValueError("a template in a file has everything there; take the other keys out")
            return self
        if not self.messages:
            raise ValueError("a template needs `messages`, or a `file` that has them")
        for message in self.messages:
            if message.content is not None:
                known(Text(message.content), self.variables)
        return self


def known(text: Text, variables: dict[str, Any]) -> None:
    """Raise ValueError if ``text`` reads a variable that is not declared."""
    for name in sorted(text.names):
        if name not in variables:
            near = did_you_mean(name, variables)
            hint = f"; did you mean `{near}`?" if near else ""
            raise ValueError(f"the messages read `{name}`, which {listed(['variables'])} does not declare{hint}")


class TemplateConfig(PolicyConfig):
    """The templates by name."""

    templates: dict[Name, TemplateSettings]

    @field_validator("templates")
    @classmethod
    def _some(cls, value: dict[str, TemplateSettings]) -> dict[str, TemplateSettings]:
        if not value:
            raise ValueError("there is no template here; name one, with its `messages`")
        return value
