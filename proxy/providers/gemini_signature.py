"""Carries Gemini's thought signatures through clients that only know OpenAI's shape.

Gemini 3 refuses a function call in the history that comes back without its ``thoughtSignature``. Every
client echoes a tool call's id, so the signature rides on it: ``<id>__thought__<signature>``, in characters
that Anthropic takes in an id too. Clients that echo whole messages also get it where Google's own
OpenAI-compatible endpoint puts it: ``extra_content.google.thought_signature``.

Source: https://ai.google.dev/gemini-api/docs/thought-signatures.
"""

from __future__ import annotations

from typing import Any, Final

SKIP: Final = "skip_thought_signature_validator"
"""What the vendor takes in place of a signature that is lost."""
MAX_ID: Final = 16_384
"""Characters of an id with its signature: the largest of 233 recorded ones has 12,732. A longer signature
travels in ``extra_content`` only. The official clients set no bound on ids; OpenAI's own API does, so a
conversation that moves there needs :func:`plain_id`."""

_MARK: Final = "__thought__"
_RAW: Final = "__thoughtx__"
_TO_URL: Final = str.maketrans("+/", "-_", "=")
_TO_STANDARD: Final = str.maketrans("-_", "+/")


def with_signature(id: str, signature: str) -> str:
    """Return ``id`` with ``signature`` on it; ``id`` itself where that would be too long."""
    packed = signature.translate(_TO_URL)
    if _standard(packed) == signature:
        carried = f"{id}{_MARK}{packed}"
    else:  # not canonical base64: a stand-in's signature must come back as it was, too
        carried = f"{id}{_RAW}{signature.encode('utf-8', 'surrogatepass').hex()}"
    return carried if len(carried) <= MAX_ID else id


def split_signature(id: str) -> tuple[str, str | None]:
    """Return the id as the vendor knows it and the signature that it carries, None without one."""
    plain, mark, packed = id.partition(_MARK)
    if mark and packed:
        return plain, _standard(packed)
    plain, mark, packed = id.partition(_RAW)
    if mark:
        try:
            return plain, bytes.fromhex(packed).decode("utf-8", "surrogatepass")
        except ValueError:
            return plain, None
    return id, None


def plain_id(id: str) -> str:
    """Return a tool call's id without the signature it may carry."""
    return split_signature(id)[0]


def extra(signature: str) -> dict[str, Any]:
    """Return the ``extra_content`` that holds ``signature``."""
    return {"google": {"thought_signature": signature}}


def signature_in(holder: dict[str, Any]) -> str | None:
    """Return the signature in the ``extra_content`` of a message or tool call."""
    content = holder.get("extra_content")
    google = content.get("google") if isinstance(content, dict) else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return signature if isinstance(signature, str) and signature else None


def _standard(packed: str) -> str:
    return packed.translate(_TO_STANDARD) + "=" * (-len(packed) % 4)
