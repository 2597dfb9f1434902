"""A part of the document → its pydantic model, and pydantic's errors → our sentences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError

from proxy.config import shape, wording
from proxy.config.document import Document
from proxy.config.expand import Unset
from proxy.config.problem import Path, did_you_mean, listed

T = TypeVar("T")
_SECRET_KEYS: Final = frozenset(("api_key", "key", "secret", "hash", "headers", "url", "webhook"))
#: Complaints about the kind of value; of several for one place, a more telling one goes first.
_STRUCTURE: Final = frozenset(
    ("model_type", "dict_type", "list_type", "tuple_type", "set_type", "frozen_set_type", "none_required",
     "model_attributes_type", "dataclass_type", "mapping_type")
)  # fmt: skip


class Validator:
    """Validate parts of one document; mistakes are noted in it."""

    def __init__(self, document: Document, whole: set[Path], touched: set[Path], broken: set[Path]) -> None:
        self.document = document
        self.whole = whole
        self.touched = touched
        self._noted: set[Path] = broken

    def validate(
        self, annotation: Any, raw: Any, path: Path, *, extra_keys: Iterable[str] = (), absent: bool = False
    ) -> Any:
        """Return ``raw`` as ``annotation`` wants it; after mistakes without the keys that are wrong, or None.

        ``extra_keys`` are known to the caller and only suggested. ``absent``: the part will not be used, so
        that what is missing in it is no mistake.
        """
        raw = self._settle(annotation, raw, path, absent)
        adapter = TypeAdapter(annotation)
        try:
            value = adapter.validate_python(raw)
        except ValidationError as error:
            wrong = self._sentences(error, annotation, raw, tuple(extra_keys))
            for place, message, suggestion in wrong:
                if not (absent and place == ()):
                    self._note((*path, *place), message, suggestion)
            return self._rest(adapter, raw, {place[0] for place, _, _ in wrong if place})
        self._booleans(value, raw, path)
        return value

    @staticmethod
    def _rest(adapter: TypeAdapter[Any], raw: Any, wrong: set[str | int]) -> Any:
        """Return what can be made of the keys that are right, so that checks across sections go on."""
        if type(raw) is not dict or not wrong:
            return None
        try:
            return adapter.validate_python({key: value for key, value in raw.items() if key not in wrong})
        except ValidationError:
            return None

    # --- expansions without a value -----------------------------------------------------------------

    def _settle(self, annotation: Any, raw: Any, path: Path, absent: bool) -> Any:
        """Return ``raw`` without its unset optional texts; note the other unset ones."""
        if type(raw) is dict:
            result = {}
            for key, value in raw.items():
                inner = shape.child(annotation, key) if annotation is not None else None
                if isinstance(value, Unset):
                    # A client key that is not set must not vanish from the list of those who may call.
                    needed = key == "key" and path[:2] == ("auth", "keys")
                    if absent or (shape.optional_text(inner) and not needed):
                        continue
                    self._unset(value, (*path, key))
                    value = ""
                result[key] = self._settle(inner, value, (*path, key), absent)
            return result
        if type(raw) is list:
            result_list = []
            for i, value in enumerate(raw):
                if isinstance(value, Unset):
                    self._unset(value, (*path, i))
                    value = ""
                result_list.append(self._settle(shape.child(annotation, i), value, (*path, i), absent))
            return result_list
        if isinstance(raw, Unset):
            self._unset(raw, path)
            return ""
        return self._scalar(annotation, raw, path)

    def _scalar(self, annotation: Any, raw: Any, path: Path) -> Any:
        """Refuse what pydantic would take for a boolean or a number but YAML 1.2 does not."""
        if annotation is None:
            return raw
        options = {option for option in shape.arms(annotation) if option is not type(None)}
        if type(raw) is str and options <= {int, float} and not _finite(raw):
            self._note(path, f"this must be a number{self._got(raw, ())}")
        if path in self.whole:
            return raw
        if options == {bool} and type(raw) is str:
            self._note(path, wording.not_boolean(raw))
            return False
        if type(raw) is bool and options <= {int, float}:
            self._note(path, f"this must be a number, not {str(raw).lower()}")
        return raw

    def _note(self, path: Path, message: str, suggestion: str | None = None) -> None:
        """Note a mistake, unless one is noted for the very place: the first is the cause of the others."""
        if path not in self._noted:
            self._noted.add(path)
            self.document.add(path, message, suggestion)

    def _unset(self, value: Unset, path: Path) -> None:
        self._note(path, value.sentence(), value.suggestion)

    # --- booleans ---------------------------------------------------------------------------------------

    def _booleans(self, value: Any, raw: Any, path: Path) -> None:
        """Refuse what pydantic would take for a boolean or a number but YAML 1.2 does not."""
        if isinstance(value, BaseModel) and type(raw) is dict:
            names = {info.alias or name: name for name, info in type(value).model_fields.items()}
            for key, item in raw.items():
                if key in names:
                    self._booleans(getattr(value, names[key]), item, (*path, key))
        elif isinstance(value, Mapping) and type(raw) is dict:
            for key, item in raw.items():
                if key in value:
                    self._booleans(value[key], item, (*path, key))
        elif isinstance(value, Sequence) and type(raw) is list and len(value) == len(raw):
            for i, item in enumerate(raw):
                self._booleans(value[i], item, (*path, i))
        elif type(value) is bool and type(raw) is not bool and path not in self.whole:
            self._note(path, wording.not_boolean(raw))
        elif type(value) in (int, float) and type(raw) is bool:
            self._note(path, f"this must be a number, not {str(raw).lower()}")

    # --- pydantic's errors ------------------------------------------------------------------------------

    def _sentences(
        self, error: ValidationError, annotation: Any, raw: Any, extra: tuple[str, ...]
    ) -> list[tuple[Path, str, str | None]]:
        by_place: dict[Path, list[Any]] = {}
        for item in error.errors(include_url=False):
            place = _place(item, raw)
            by_place.setdefault(place, []).append(item)
        result = []
        for place, items in by_place.items():
            deeper = any(len(other) > len(place) and other[: len(place)] == place for other in by_place)
            if _at(raw, place) and all(item["type"] == "too_short" for item in items):
                continue  # only because the items that are there are wrong themselves
            telling = [item for item in items if item["type"] not in _STRUCTURE]
            if deeper and all(len(item["loc"]) > len(place) or item["type"] in _STRUCTURE for item in items):
                continue  # the other arms of a union; the one that fits best has complaints of its own
            item = (telling or items)[0]
            alternatives = items if not telling or len(telling) == len(items) else telling
            result.append((place, *self._sentence(item, alternatives, place, annotation, raw, extra)))
        # A mistyped key that is required is one mistake, not two.
        meant = {(*place[:-1], suggestion) for place, _, suggestion in result if suggestion}
        return [row for row in result if not (row[0] in meant and row[1] == wording.REQUIRED)]

    def _sentence(
        self, item: Any, items: list[Any], place: Path, annotation: Any, raw: Any, extra: tuple[str, ...]
    ) -> tuple[str, str | None]:
        kind: str = item["type"]
        context = item.get("ctx") or {}
        if kind == "extra_forbidden":
            known = _known_keys(annotation, place[:-1])
            if len(place) == 1:
                known = [*known, *extra]
            near = did_you_mean(str(place[-1]), [*known, *_listed_keys(annotation, place[:-1])])
            others = "" if near or not known else f"; known here: {listed(sorted(known), 'and')}"
            return f"unknown key{others}", near
        if kind == "missing":
            return wording.REQUIRED, None
        if kind in ("literal_error", "enum"):
            options = _options(annotation, place) or [context.get("expected", "").replace("'", "")]
            near = did_you_mean(str(_at(raw, place)), options)
            return f"this must be {listed(options)}{self._got(raw, place)}", near
        if kind in ("value_error", "assertion_error"):
            return str(context.get("error") or item["msg"]), None
        got = self._got(raw, place)
        value = _at(raw, place)
        if kind in ("bool_type", "bool_parsing"):
            sentence = wording.not_boolean(value if got else None)
            return sentence if "write" in sentence else f"{sentence}{got}", None
        if kind == "string_type" and isinstance(value, int | float) and not isinstance(value, bool):
            return f'this must be a text; quote it: "{value}"', None
        wanted = list(
            dict.fromkeys(wording.KINDS[k] for other in items if (k := wording.kind(other["type"])) in wording.KINDS)
        )
        if wanted:
            return f"this must be {' or '.join(wanted)}{got}", None
        if kind == "int_from_float":
            return f"this must be a whole number{got}", None
        if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
            sign, bound = {
                "greater_than": ("more than", "gt"), "greater_than_equal": ("at least", "ge"),
                "less_than": ("less than", "lt"), "less_than_equal": ("at most", "le"),
            }[kind]  # fmt: skip
            return f"this must be {sign} {wording.number(context.get(bound))}{wording.unit(value)}{got}", None
        if kind == "string_pattern_mismatch":
            return f"{wording.pattern(str(context.get('pattern')))}{got}", None
        if kind == "string_too_short" and context.get("min_length") == 1:
            return "this must not be empty", None
        if kind == "too_short":
            return "this must not be an empty list", None
        message = item["msg"]
        return f"{message[:1].lower()}{message[1:]}", None

    def _got(self, raw: Any, place: Path) -> str:
        """Return ``, not "x"`` unless the value may be a secret."""
        value = _at(raw, place)
        if any(step in _SECRET_KEYS for step in place) or any(p[-len(place) :] == place for p in self.touched):
            return ""
        if isinstance(value, str):
            return f', not "{value[:40]}"'
        if value is None:
            return ", not empty"
        if isinstance(value, dict | list):
            return f", not {'keys with values' if isinstance(value, dict) else 'a list'}"
        return f", not {str(value).lower()}"


def _finite(text: str) -> bool:
    """Return whether a text is no number, or one that ends: pydantic takes "inf" for a number too."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return True


def _place(item: Any, raw: Any) -> Path:
    """Return where in the file an error stands: its location without pydantic's names of union arms."""
    place: list[str | int] = []
    steps: tuple[Any, ...] = item["loc"]
    for i, step in enumerate(steps):
        if (type(raw) is dict and step in raw) or (type(raw) is list and type(step) is int and step < len(raw)):
            raw = raw[step]
        elif i == len(steps) - 1 and item["type"] == "missing" and type(raw) is dict:
            pass
        else:
            continue
        place.append(step)
    return tuple(place)


def _at(raw: Any, place: Path) -> Any:
    for step in place:
        try:
            raw = raw[step]
        except (KeyError, IndexError, TypeError):
            return None
    return raw


def _known_keys(annotation: Any, place: Path) -> list[str]:
    for step in place:
        annotation = shape.child(annotation, step)
    return [key for model in shape.models(annotation) for key in shape.fields(model)]


def _listed_keys(annotation: Any, place: Path) -> list[str]:
    for step in place:
        annotation = shape.child(annotation, step)
    return [key for model in shape.models(annotation) for key in shape.direct(model)]


def _options(annotation: Any, place: Path) -> list[str]:
    for step in place:
        annotation = shape.child(annotation, step)
    return [str(o) for arm in shape.arms(annotation) if get_origin(arm) is Literal for o in get_args(arm)]
