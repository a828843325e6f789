"""Rank a few sentences by their closeness to a query, with the reference student: numpy and onnxruntime are enough.

python export/try.py [QUERY]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from edgeleaf import QueryEncoder

STUDENT = Path(__file__).parent / "models" / "mpnet"
QUERY = "my package never arrived"
SENTENCES = (
    "How to track a lost parcel",
    "Opening hours of the post office on Sundays",
    "The best pizza dough rests overnight in the fridge",
    "Sorting a list of numbers in Python",
    "A train strike delays commuters in the capital",
    "Refunds for orders that were not delivered",
    "Symptoms of a common cold",
    "Which city has the tallest building in Europe?",
)


def main() -> None:
    query = " ".join(sys.argv[1:]).strip() or QUERY
    encoder = QueryEncoder.load(STUDENT)
    start = time.perf_counter()
    (asked, *vectors) = encoder.encode([query, *SENTENCES])
    spent_ms = 1000 * (time.perf_counter() - start)
    scores = [float(vector @ asked) for vector in vectors]
    print(query)
    for score, sentence in sorted(zip(scores, SENTENCES, strict=True), reverse=True):
        print(f"  {score:6.3f}  {sentence}")
    size_mb = (STUDENT / "query_encoder.onnx").stat().st_size / 1e6
    print(
        f"{len(SENTENCES) + 1} texts to {len(asked)} numbers each in {spent_ms:.0f} ms, by one file of {size_mb:.0f} MB"
    )


if __name__ == "__main__":
    main()
