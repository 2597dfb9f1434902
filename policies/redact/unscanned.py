"""What a request holds that no pattern can look into: images, sounds, files, the numbers of tokens."""

from __future__ import annotations

from typing import Any, Final

_KINDS: Final = {"image_url": "image", "input_image": "image", "image": "image", "input_audio": "audio", "audio": "audio",
                 "file": "file", "input_file": "file", "document": "file", "video_url": "video", "video": "video"}  # fmt: skip
_TEXT: Final = frozenset(("text", "input_text", "output_text", "refusal", "thinking"))
#: Where a prompt may be given as the numbers of tokens.
_NUMBERED: Final = ("input", "prompt")


def unscanned(body: dict[str, Any]) -> dict[str, int]:
    """Return how many parts of each kind ``body`` holds that cannot be looked into.

    The body itself is asked, each time: a policy may have put a picture where the caller's messages had none.
    """
    counts: dict[str, int] = {}
    for name in _NUMBERED:
        given = body.get(name)
        if type(given) is list and given and type(given[0]) is not str:  # tokens, or rows of them
            counts["tokens"] = counts.get("tokens", 0) + (len(given) if type(given[0]) is list else 1)
    messages = body.get("messages")
    for message in messages if type(messages) is list else ():
        content = message.get("content") if type(message) is dict else None
        if type(content) is list:
            for part in content:
                kind = part.get("type") if type(part) is dict else None
                if kind not in _TEXT:
                    kind = _KINDS.get(kind or "", "other")
                    counts[kind] = counts.get(kind, 0) + 1
    return counts
