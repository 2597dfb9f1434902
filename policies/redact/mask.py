"""What is done about a finding: counted, masked by a word, a hash or a placeholder, or refused."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from typing import Final, Literal

from policies.redact.detector import Detector
from policies.redact.engine import DetectorFailed
from policies.redact.restore import Placeholders
from proxy.errors import ApiError

Action = Literal["mask", "block", "count"]
Mode = Literal["mask", "hash", "restore"]
Direction = Literal["request", "reply"]
_HASH: Final = 12


class Masker:
    """Decides about the findings of one call in one direction; ``note`` is told each one's name, never a value."""

    __slots__ = ("_actions", "_direction", "_key", "_mode", "_note", "asked", "found", "masked", "placeholders")

    def __init__(
        self,
        actions: Mapping[str, Action],
        note: Callable[[str], None],
        direction: Direction,
        mode: Mode = "mask",
        key: bytes = b"",
        placeholders: Placeholders | None = None,
    ) -> None:
        self._direction: Direction = direction
        self._note = note
        self.asked = 0
        """How often something was found, what was given back by ourselves included."""
        self.found = 0
        self.masked = 0
        self._actions = actions
        self._mode = mode
        self._key = key
        self.placeholders = placeholders

    def replace(self, detector: Detector, original: str) -> str | None:
        """Count a finding and return what is put in its place, None to leave it; raise to refuse the call."""
        self.asked += 1
        if self.placeholders is not None and original in self.placeholders.originals:
            return None
        name = detector.name
        self.found += 1
        self._note(name)
        action = self._actions[name]
        if action == "count":
            return None
        if action == "block":
            raise blocked(self._direction, name)
        self.masked += 1
        if self.placeholders is not None:
            return self.placeholders.give(detector.mark, original)
        if self._mode == "hash":
            digest = hmac.digest(self._key, f"{detector.word}\0{original}".encode("utf-8", "surrogatepass"), "sha256")
            return f"[{detector.word}_{digest.hex()[:_HASH]}]"
        return detector.replacement

    def again(self, detector: Detector, original: str) -> str | None:
        """Do the same where a masked text is looked at once more: what is only counted has been."""
        return None if self._actions[detector.name] == "count" else self.replace(detector, original)


def blocked(direction: Direction, name: str) -> ApiError:
    """Return the refusal for data that may not pass."""
    if direction == "request":
        return ApiError(
            "content_policy_violation",
            f"The request holds data that must not leave ({name}); take it out and send the request again.",
        )
    return ApiError(
        "content_policy_violation",
        f"The answer holds data that must not be passed on ({name}); ask for an answer without it.",
    )


def failed(error: DetectorFailed) -> ApiError:
    """Return the refusal for a detector that does not work: what cannot be looked at does not pass."""
    return ApiError(
        "policy_unavailable",
        f"The redaction detector `{error.args[0]}` failed, so nothing was passed on; report this to the sidecar's operator.",
        retry_after=1.0,
    )
