"""What the methods of a study cost: parameters, FLOPs, time of a training step and of inference, memory of a step.

    python -m benchmarks.complexity studies/papers.yaml --size 256 --out runs/papers/complexity.json

Networks, trainers and losses are those of the bundles' configs with the overlays and options of the study's methods.
All cases are measured in this process and in turn; times are medians after a warm-up. `grn-monai report` of a study
makes its complexity table from `complexity.json` in the study's output folder, and never measures anything itself.
Nothing else should run on the machine meanwhile. A method that needs a package that is not installed is left out, with
the reason. Ablations, which cost what their methods do, are measured only where `--only` names them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from benchmarks._common import finish, parser
from grn_monai.errors import report_input_errors
from grn_monai.report.study.complexity_cases import read_cases
from grn_monai.report.study.complexity_measure import measure


def main() -> None:
    """Run the benchmark."""
    report_input_errors()
    p = parser(__doc__)
    p.add_argument("study", type=Path, help="STUDY.yaml, study.json, or a study's output folder")
    p.add_argument("--bundles", type=Path, help="folder of the bundles (default: as the study says)")
    p.add_argument("--only", nargs="+", metavar="METHOD", help="these methods of the study alone")
    p.add_argument("--size", type=int, default=256, help="side of the images (default 256)")
    p.add_argument("--batch", type=int, default=4, help="images in a batch (default 4)")
    p.add_argument("--rounds", type=int, default=15, help="rounds of all cases (default 15)")
    p.add_argument("--warmup", type=int, default=3, help="steps of each case before them (default 3)")
    p.add_argument("--device", default="cpu", help="such as cpu or cuda (default cpu)")
    args = p.parse_args()
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler that counts memory would fill the terminal
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    cases, bundles = read_cases(args.study)
    unknown = sorted(set(args.only or ()) - {case.key for case in cases})
    if unknown:
        p.error(f"the study has no method {', '.join(unknown)}; it has {', '.join(case.key for case in cases)}")
    cases = [case for case in cases if (case.key in args.only if args.only else case.group != "ablation")]
    result = measure(
        cases,
        args.bundles or bundles,
        args.size,
        args.batch,
        args.rounds,
        args.warmup,
        args.device,
        lambda line: print(line, file=sys.stderr, flush=True),
    )
    finish({"benchmark": "complexity", **result}, args.out)


if __name__ == "__main__":
    main()
