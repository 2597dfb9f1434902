"""What a model says about the value at a path: its keys, and whether it is an optional text."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo


def fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return a model's fields by their key in llm.yml (the alias where there is one)."""
    return {info.alias or name: info for name, info in model.model_fields.items()}


def arms(annotation: Any) -> list[Any]:
    """Return the alternatives of an annotation, unwrapped from ``Annotated`` and unions."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return arms(get_args(annotation)[0])
    if origin is Union or origin is types.UnionType:
        return [arm for option in get_args(annotation) for arm in arms(option)]
    return [annotation]


def models(annotation: Any) -> list[type[BaseModel]]:
    """Return the models among an annotation's alternatives."""
    return [arm for arm in arms(annotation) if isinstance(arm, type) and issubclass(arm, BaseModel)]


def direct(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the keys of the models that ``model`` lists: some policies take one item's keys directly."""
    return {
        key: info
        for listed in model.model_fields.values()
        for arm in arms(listed.annotation)
        if get_origin(arm) in (list, tuple)
        for item in models(get_args(arm)[0])
        for key, info in fields(item).items()
    }


def child(annotation: Any, step: str | int) -> Any:
    """Return the annotation of one key or list item, None where it is unknown."""
    found: list[Any] = []
    for arm in arms(annotation):
        if isinstance(arm, type) and issubclass(arm, BaseModel):
            info = fields(arm).get(str(step))
            candidates = [info] if info is not None else [direct(arm).get(str(step))]
            found.extend(candidate.annotation for candidate in candidates if candidate is not None)
            continue
        origin, arguments = get_origin(arm), get_args(arm)
        if not isinstance(origin, type) or not arguments:
            continue
        if issubclass(origin, Mapping) and isinstance(step, str):
            found.append(arguments[-1])
        elif not issubclass(origin, Mapping) and isinstance(step, int):
            found.append(arguments[0])
    if not found:
        return None
    return found[0] if len(found) == 1 else Union[tuple(found)]  # noqa: UP007 (built at run time)


def optional_text(annotation: Any) -> bool:
    """Return whether the setting is a text that may be left out."""
    options = arms(annotation)
    return type(None) in options and (str in options or SecretStr in options)
