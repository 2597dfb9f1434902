"""What a text must hold before some detectors are looked for at all: words, signs and numbers that plain text has little of.

RE2 builds an automaton's states as texts need them, and where many patterns are alive at once each new text needs new
ones for ever. So the patterns are looked for in families of their own, each only in texts that hold its gate. A long run
(:data:`policies.redact.runs.LONG_RUN`) is the gate of every pattern whose matches hold one.
"""

from __future__ import annotations

from typing import Final

from policies.redact.alphabet import characters

#: Names that secrets are assigned to.
NAME: Final = (
    "(?i)key|token|secret|pass|pw|psk|senha|wachtwoord|kennwort|heslo|has(?:l|ł)o|l(?:o|ö)senord|adgangskode|salasana"
    "|contrase|credential|signature|sess|cookie|connect\\.sid"
)
#: The same, where a secret stands in markup, behind a type or in a sentence.
WORD: Final = "(?i)pass|pwd|secret|token|key|salt|credential|access|wort|contrase|senha|wachtwoord|pin[ \\tは是：]"
#: Two digits, and what stands between the digits of a number; the first one begins a word, or stands behind two letters.
NUMBER: Final = r"\b(?:[A-Za-z]{2})?\d[ ./()-]{0,17}\d"
#: What joins the parts of names and addresses.
SIGN: Final = r"[_=:$~@-]|(?i:\.(?:int|corp|lan|loc|svc|priv|home)|[0-9a-f]\.[0-9a-f]|net[ \t]user)"
#: The single characters among those: whatever needs one of them needs a sign.
SIGNS: Final = characters("[_=:$~@-]")
