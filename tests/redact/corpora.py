"""Measures the built-in detectors on labelled lines: ``make corpora``, or this file with a folder.

FOLDER holds the corpora as JSON lines; without it they are unpacked from ``../shared/secrets`` next to the
repository. Prints one table per corpus and exits with 1 where the promised quality (recall of the types that the
built-in detectors claim ≥ 95 %, negatives touched ≤ 2 %) is missed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

if not __package__:  # run as a file: the repository's root is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from policies.redact.whole import find, redact_text

SOURCE: Final = Path(os.environ.get("SHARED_DIR") or Path(__file__).resolve().parents[3] / "shared") / "secrets"
#: Types of personal data that the built-in detectors do not claim: no checksum or shape tells them from any number.
UNCLAIMED: Final = frozenset(
    ("DATE_TIME", "URL", "US_BANK_NUMBER", "US_DRIVER_LICENSE", "US_PASSPORT", "US_ITIN", "PERSON", "LOCATION")
)
#: What the corpus calls public addresses only; the design document wants private ones masked, too.
CONTRADICTED: Final = frozenset(("ip_public",))
RECALL: Final = 0.95
TOUCHED: Final = 0.02


class Score(NamedTuple):
    """One corpus: per rule hits and positives, untouched and negatives; the negatives that were touched."""

    name: str
    recall: dict[str, tuple[int, int]]
    clean: dict[str, tuple[int, int]]
    touched: list[tuple[str, tuple[str, ...]]]

    def total(self, kind: str, *, claimed: bool = True) -> tuple[int, int]:
        rows = self.recall if kind == "recall" else self.clean
        skip = UNCLAIMED if kind == "recall" else CONTRADICTED
        chosen = [row for rule, row in rows.items() if not (claimed and rule in skip)]
        return sum(a for a, _ in chosen), sum(b for _, b in chosen)


@contextmanager
def folder(given: str | None = None) -> Iterator[Path]:
    """Yield the folder of the corpora; raise FileNotFoundError, saying where they are looked for."""
    if given or (given := os.environ.get("SECRETS_DIR")):
        yield Path(given)
        return
    if not (SOURCE / "unpack").exists():
        raise FileNotFoundError(f"no labelled secrets at {SOURCE}; set SECRETS_DIR to a folder that has them unpacked")
    with tempfile.TemporaryDirectory() as place:
        subprocess.run([str(SOURCE / "unpack"), place], check=True, capture_output=True)
        found = sorted(Path(place).rglob("*.jsonl"))
        yield found[0].parent


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def score(path: Path) -> Score:
    """Return how the built-in detectors, all groups, do on one corpus."""
    recall: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    clean: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    touched = []
    for row in lines(path):
        text, rule = row["text"], row["rule"]
        positive = row["is_secret"] if "is_secret" in row else row["is_pii"]
        out = redact_text(text)
        if positive:
            wanted = [text[a:b] for a, b, *_ in row.get("spans") or ()] or [
                w for w in row.get("want") or () if w in text
            ]
            recall[rule][0] += all(w not in out for w in wanted) if wanted else out != text
            recall[rule][1] += 1
        else:
            clean[rule][0] += out == text
            clean[rule][1] += 1
            if out != text:
                touched.append((rule, tuple(sorted({name for name, _, _ in find(text)}))))
    rows = [{rule: (a, b) for rule, (a, b) in sorted(found.items())} for found in (recall, clean)]
    return Score(path.stem, rows[0], rows[1], touched)


def corpora(place: Path) -> list[Score]:
    """Return the scores of every labelled corpus in a folder."""
    return [score(path) for path in sorted(place.glob("*.jsonl")) if lines(path)[:1] and "rule" in lines(path)[0]]


def table(one: Score) -> str:
    """Return one corpus as a table in Markdown."""
    out = [
        f"### {one.name}",
        "",
        "| rule | found | positives | untouched | negatives |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for rule in sorted({*one.recall, *one.clean}):
        hit, positives = one.recall.get(rule, (0, 0))
        clean, negatives = one.clean.get(rule, (0, 0))
        mark = " (not claimed)" if rule in UNCLAIMED else ""
        out.append(f"| {rule}{mark} | {hit} | {positives} | {clean} | {negatives} |")
    (hit, positives), (clean, negatives) = one.total("recall"), one.total("clean")
    out.append(f"| **claimed types** | **{hit}** | **{positives}** | **{clean}** | **{negatives}** |")
    out += ["", f"Recall {hit / max(1, positives):.1%}, negatives touched {1 - clean / max(1, negatives):.1%}."]
    for (rule, names), n in sorted(Counter(one.touched).items()):
        out.append(f"- {n} × a negative of `{rule}` was touched by {', '.join(f'`{name}`' for name in names)}")
    return "\n".join(out)


def main(arguments: list[str]) -> int:
    with folder(arguments[0] if arguments else None) as place:
        scores = corpora(place)
    print("\n\n".join(table(one) for one in scores))
    hit, positives = map(sum, zip(*(one.total("recall") for one in scores), strict=True))
    clean, negatives = map(sum, zip(*(one.total("clean") for one in scores), strict=True))
    print(f"\nIn all: recall {hit}/{positives} = {hit / positives:.1%}; negatives untouched {clean}/{negatives}, "
          f"touched {1 - clean / negatives:.1%}.")  # fmt: skip
    return 0 if hit / positives >= RECALL and 1 - clean / negatives <= TOUCHED else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
