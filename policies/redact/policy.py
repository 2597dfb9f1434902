"""The policy: masks what must not leave on the way out, and what must not come in on the way back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from typing import Any, ClassVar, Final

from policies.base import ApiError, Call, Policy, Slot
from policies.redact.config import RedactConfig
from policies.redact.detector import Detector
from policies.redact.engine import DetectorFailed, Engine
from policies.redact.json_lane import JsonLane
from policies.redact.known import LONGEST, Known
from policies.redact.lanes import CODEC, Lane, Looks, PlainLane, Replace, masked_text
from policies.redact.mask import Action, Direction, Masker, failed
from policies.redact.named import named
from policies.redact.packs import Pack, PackError
from policies.redact.reply import ReplyFilter
from policies.redact.restore import Placeholders, Sight
from policies.redact.search import Trail
from policies.redact.unscanned import unscanned
from policies.redact.whole import builtin, engine_for
from proxy.telemetry.log import describe

#: Characters that are looked at in one go before other calls have their turn.
SLICE: Final = 8_192
#: What a text costs beyond its characters, in characters.
SLOT: Final = 64
#: How often a text with placeholders in it is looked at until nothing is found; what follows it matters to nobody.
ROUNDS: Final = 4


class Redact(Policy[RedactConfig]):
    """Find secrets and personal data in every text of a call, both ways, and mask, refuse or count them."""

    Config = RedactConfig
    after: ClassVar[tuple[str, ...]] = ("template",)
    changes_request: ClassVar[bool] = True

    def __init__(self, config: RedactConfig, kit: Any) -> None:
        super().__init__(config, kit)
        self._warnings: list[str] = []
        self._read: dict[str, str] = {}
        """Digests of the files that the rules come from."""
        found = {detector.name: detector for detector in builtin(config.builtin)}
        own: dict[str, Action] = {}
        for pattern in config.patterns:
            detector = found[pattern.name] = pattern.detector()
            if pattern.action is not None:
                own[pattern.name] = pattern.action
            if detector.node.most > detector.delay and pattern.max_length is None:
                self._warnings.append(
                    f"the pattern `{pattern.name}` has no longest match; {detector.delay} characters are looked at, "
                    "and a stream may wait for as many: set `max_length`"
                )
        for name in config.packs:
            pack = self._pack(name)
            self._warnings += pack.warnings
            for detector in pack.detectors:
                if detector.name in found:
                    raise PackError(f"the rule pack {name}, rule `{detector.name}`: another detector bears this name")
                found[detector.name] = detector
        self._actions = _actions(config.action, own, found.values())
        #: What is counted only is counted in replies, too.
        self._reply_actions: dict[str, Action] = {
            name: "count" if action == "count" else config.replies for name, action in self._actions.items()
        }
        self._watches = all(action == "count" for action in self._reply_actions.values())
        plain = not config.patterns and not config.packs
        self._engine: Engine = engine_for(tuple(config.builtin)) if plain else Engine(list(found.values()))
        self._key = kit.secret("redact") if config.mode == "hash" else b""
        self._known = Known()

    def _pack(self, name: str) -> Pack:
        path = os.path.join(self.kit.folder or ".", name)
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read()
            self._read[name] = sha256(text.encode()).hexdigest()
            return Pack(name, text)
        except (OSError, UnicodeDecodeError) as error:
            raise PackError(
                f"the rule pack {name} cannot be read: {getattr(error, 'strerror', None) or error}"
            ) from None

    def fingerprint(self) -> Any:
        return {**super().fingerprint(), "packs": self._read}

    # --- the request

    async def on_request(self, call: Call) -> None:
        kinds = unscanned(call.request.body)
        for kind, n in kinds.items():
            self.kit.metrics.unscanned(kind, n)
        if kinds and self.config.on_unscannable == "block":
            raise ApiError(
                "content_policy_violation",
                f"The request holds parts that cannot be looked into ({', '.join(sorted(kinds))}); "
                "send their content as text.",
                param=call.request.main,
            )
        placeholders = None
        if self.config.mode == "restore" and self.enforce:
            placeholders = Placeholders()
            busy = 0
            for slot in call.request.texts():
                text = slot.text
                placeholders.skip(text)
                if (busy := busy + len(text) + SLOT) > 4 * SLICE:
                    busy = 0
                    await asyncio.sleep(0)
        masker = self._masker(call, "request", self._actions, placeholders)
        try:
            await self._mask(call.request.texts(), masker)
        except DetectorFailed as error:
            raise self._failed(call, error) from error
        if masker.found and not self.enforce:
            call.no_store("findings")
        if placeholders is not None and placeholders.originals:
            call.notes[self.name] = placeholders.originals

    async def _mask(self, slots: Iterable[Slot], masker: Masker) -> None:
        decide, known, busy, total = self._engine.decide, self._known, 0, 0
        levels: dict[str, tuple[int, int]] = {}  # one budget for the whole request, however it is cut into messages
        for slot in slots:
            if busy > SLICE:
                busy = 0
                await asyncio.sleep(0)
            text = slot.text
            size = len(text)
            if size <= LONGEST:
                buffer = text.encode(*CODEC)
                length, mark = len(buffer), None if slot.name else known.mark(buffer, slot.kind)
            else:  # of a text that is looked at in slices no second copy is held
                length, mark = size if text.isascii() else len(text.encode(*CODEC)), None
            base, total = total, total + length
            if mark is not None and known.recall(mark, levels, base):
                busy += size >> 2
                continue
            busy += size + SLOT
            trail, asked, before = Trail(levels, base), masker.asked, levels
            if mark is not None:
                trail.refused, before = [], levels.copy()
            if size <= SLICE and slot.kind != "arguments":
                # The common case: looked at in one go.
                findings = (
                    decide(buffer, 0, True, trail)[1] if not slot.name else named(decide, slot.name, buffer, trail)
                )
                masked = masked_text(buffer, 0, len(buffer), findings, masker.replace) if findings else text
            else:
                masked = await self._through(self._engine, masker.replace, text, slot.kind, trail)
            if masker.asked == asked:
                if mark is not None and trail.refused is not None:
                    known.keep(mark, before, levels, trail.refused, base)
            elif masked != text and self.enforce:
                slot.text = await self._settled(masked, slot.kind, masker)

    async def _through(self, engine: Looks, replace: Replace, text: str, kind: str, trail: Trail | None = None) -> str:
        lane: Lane = (JsonLane if kind == "arguments" else PlainLane)(engine, replace, trail)
        parts = []
        size = len(text)
        for at in range(0, size, SLICE):
            # The last slice says so at once: what might begin a longer match matters only while more may come.
            parts.append(lane.feed(text[at : at + SLICE], at + SLICE >= size))
            await asyncio.sleep(0)
        return "".join(parts)

    async def _settled(self, masked: str, kind: str, masker: Masker) -> str:
        """Return a text with placeholders so that nothing is found in it any more.

        Masking may uncover what was a part of something else, and what is found in it then would be found in the reply
        that says it again, too, where no original comes back for it.
        """
        if masker.placeholders is None:
            return masked
        sight = Sight(self._engine, masker.placeholders.known)
        for _ in range(ROUNDS):
            again = await self._through(sight, masker.again, masked, kind)
            if again == masked:
                break
            masked = again
        return masked

    # --- the reply

    def on_reply(self, call: Call) -> ReplyFilter:
        masker = self._masker(call, "reply", self._reply_actions, None)
        originals: Mapping[str, str] = call.notes.get(self.name) or {}
        wanted = call.request.body.get("response_format") if originals else None
        return ReplyFilter(
            self._engine, masker, originals, partial(self._failed, call), watch=self._watches or not self.enforce,
            quoted=type(wanted) is dict and wanted.get("type") in ("json_object", "json_schema"),
        )  # fmt: skip

    def _masker(
        self, call: Call, direction: Direction, actions: Mapping[str, Action], placeholders: Placeholders | None
    ) -> Masker:
        return Masker(
            actions, partial(self._noted, call, direction), direction, self.config.mode, self._key, placeholders
        )

    def _noted(self, call: Call, direction: Direction, name: str) -> None:
        """Count a finding; called for each one, at once."""
        self.kit.metrics.sensitive(name, direction, 1)
        detectors = call.detectors
        if not detectors:
            call.defer(partial(self._log, call))
        detectors[name] = detectors.get(name, 0) + 1
        if direction == "reply":
            call.no_store("findings")

    def _failed(self, call: Call, error: DetectorFailed) -> ApiError:
        """Return the refusal, and tell the operator which detector failed and where; never on what."""
        call.no_store("findings")  # what was not looked at is not kept, in shadow mode neither
        fields = {"request_id": call.id, "policy": self.name, "detector": error.args[0]}
        self.kit.log.error("detector_failed", extra={"fields": fields | describe(error.__cause__ or error)})
        return failed(error)

    def _log(self, call: Call, outcome: Any) -> None:
        fields = {
            "request_id": call.id,
            "team": call.caller.team,
            "policy": self.name,
            "detectors": dict(call.detectors),
        }
        self.kit.log.warning("Sensitive data detected", extra={"fields": fields})

    # --- what check prints

    def describe(self) -> dict[str, Any]:
        facts = super().describe()
        detectors = self._engine.detectors
        facts["detectors"] = len(detectors)
        # The house's own first, then the longest: a short listing shows those that matter.
        ranked = sorted(detectors, key=lambda d: (d.group not in ("own", "packs"), -d.delay))
        facts["stream_delay_characters"] = {detector.name: detector.delay for detector in ranked}
        return facts

    def warnings(self) -> Sequence[str]:
        long = [d.name for d in self._engine.detectors if d.group in ("own", "packs") and d.delay > 64]
        waits = [f"the patterns {', '.join(long)} may hold back more than 64 characters of a stream"] if long else []
        return [*self._warnings, *waits]


def _actions(
    setting: Action | Mapping[str, Action], own: Mapping[str, Action], detectors: Iterable[Detector]
) -> dict[str, Action]:
    """Return each detector's action: its own, else its name's, else its group's, else the default."""
    by_name: Mapping[str, Action] = {"default": setting} if isinstance(setting, str) else setting
    default: Action = by_name.get("default", "mask")
    actions: dict[str, Action] = {}
    known = {"default"}
    for detector in detectors:
        known |= {detector.name, detector.group}
        actions[detector.name] = own.get(
            detector.name, by_name.get(detector.name, by_name.get(detector.group, default))
        )
    for name in by_name:
        if name not in known:
            raise ValueError(f"`action` names `{name}`, which is neither a detector nor a group that is listed")
    return actions
