"""Damaged files of every format: cases tried, and how they ended.

    python -m benchmarks.fuzz --out benchmarks/results/fuzz.json

The cases of `tests/data/readers/test_fuzz.py` (truncated, bits and bytes changed, mislabelled, pickles, huge claims),
more of them; the draws are the same in every run. Each format is read in a child process of limited memory.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._common import finish, parser


def main() -> None:
    """Run the cases and count their ends."""
    from tests.data.readers.fuzzing import count_outcomes, run_cases

    p = parser(__doc__)
    p.add_argument("--effort", type=float, default=2.0, help="share of the drawn cases per format (default 2)")
    args = p.parse_args()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        outcomes = run_cases(Path(folder), args.effort)
    slowest = max(outcomes, key=lambda outcome: outcome.seconds)
    result: dict[str, Any] = {
        "effort": args.effort,
        "formats": count_outcomes(outcomes),
        "slowest_s": slowest.seconds,
        "slowest": f"{slowest.target}, {slowest.case}",
        "seconds": time.perf_counter() - start,
    }
    finish(result, args.out)


if __name__ == "__main__":
    main()
