"""What a request holds that no pattern can look into: images, sounds, files, the numbers of tokens."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

_KINDS: Final = {"image_url": "image", "input_image": "image", "image": "image", "input_audio": "audio", "audio": "audio",
                 "file": "file", "input_file": "file", "document": "file", "video_url": "video", "video": "video"}  # fmt: skip
_TEXT: Final = frozenset(("text", "input_text", "output_text", "refusal", "thinking"))


def unscanned(body: dict[str, Any]) -> dict[str, int]:
    """Return how many parts of each kind ``body`` holds that cannot be looked into."""
    counts: Counter[str] = Counter()
    for name in ("input", "prompt"):
        given = body.get(name)
        if type(given) is list and given and type(given[0]) is not str:  # tokens, or rows of them
            counts["tokens"] += len(given) if type(given[0]) is list else 1
    messages = body.get("messages")
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            for part in content:
                kind = part.get("type") if isinstance(part, dict) else None
                if kind not in _TEXT:
                    counts[_KINDS.get(kind or "", "other")] += 1
    return counts
