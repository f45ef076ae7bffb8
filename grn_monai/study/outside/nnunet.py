"""nnU-Net v2 on the cohort of a study: the same labelled scans, the same test scans, the same scores.

    python -m grn_monai.study.outside.nnunet STUDY.yaml --fraction 0.05 --seed 0

writes `OUTPUT/outside/nnunet_2d/5pct/seed_0/` with `evaluation/test_raw/`, which `grn-monai report` takes as a row.
nnU-Net stays in an environment of its own (`make setup-nnunet`); its commands are called, as a user would.

Source: Isensee et al., nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation,
Nature Methods 18, 203–211 (2021).
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from grn_monai.commands.common import BAD_INPUT, OK, SOME_FAILED
from grn_monai.errors import InputError
from grn_monai.study.load import load_plan
from grn_monai.study.outside.nnunet_run import NnunetRun
from grn_monai.study.outside.nnunet_tools import SMALL, Settings, find_nnunet

__all__ = ["main"]


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m grn_monai.study.outside.nnunet",
        description="Train nnU-Net v2 on a study's cohort and score it as the study's methods; a stopped run goes on.",
    )
    parser.add_argument("study", metavar="STUDY.yaml", type=Path, help="the study")
    parser.add_argument("--output", metavar="FOLDER", type=Path, help="the study's output (default: as the study says)")
    parser.add_argument(
        "--fraction", type=float, nargs="+", metavar="F", help="shares of labels (default: the study's)"
    )
    parser.add_argument("--seed", type=int, nargs="+", metavar="S", help="seeds (default: the study's)")
    parser.add_argument("--configuration", choices=tuple(SMALL), default="2d", help="nnU-Net's (default: 2d)")
    parser.add_argument(
        "--preset", choices=("planned", "small"), default="planned",
        help="planned: as nnU-Net plans it; small: smaller batches, patches and network, for a CPU (default: planned)",
    )  # fmt: skip
    parser.add_argument("--epochs", type=_positive, default=1000, help="default: 1000, as nnU-Net")
    parser.add_argument("--iterations", type=_positive, default=250, help="of an epoch (default: 250, as nnU-Net)")
    parser.add_argument("--device", choices=("cpu", "cuda", "mps"), default="cuda", help="default: cuda")
    parser.add_argument("--threads", type=_positive, default=None, help="of torch (default: OMP_NUM_THREADS, or all)")
    parser.add_argument("--workers", type=_positive, default=2, help="processes for the data (default: 2)")
    parser.add_argument("--name", help="folder below outside/ (default: nnunet_CONFIGURATION, with _small)")
    parser.add_argument("--nnunet", metavar="FOLDER", type=Path, help="environment of nnU-Net (default: .venv-nnunet)")
    return parser


def _runs(options: argparse.Namespace) -> list[NnunetRun]:
    plan = load_plan(options.study, options.output)
    for what, asked, known in (("fraction", options.fraction, plan.fractions), ("seed", options.seed, plan.seeds)):
        for value in asked or ():
            if value not in known:
                shown = ", ".join(f"{k:g}" for k in known)
                raise InputError(f"--{what} {value:g}", "none of the study", shown, "Its rows would pair with no run.")
    bin_dir = find_nnunet(options.nnunet)
    threads = options.threads or int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    runs = []
    for seed in options.seed or plan.seeds:
        for fraction in options.fraction or plan.fractions:
            settings = Settings(
                fraction, seed, options.configuration, options.preset, options.epochs, options.iterations
            )
            name = options.name or f"nnunet_{settings.planned}"
            runs.append(NnunetRun(plan, settings, bin_dir, name, options.device, threads, options.workers))
    return runs


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments without the program's name.

    Returns:
        0 all runs are done, 1 some failed (the others were done), 2 bad input.
    """
    options = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nnU-Net's processes are ended too
    try:
        runs = _runs(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    status = OK
    for run in runs:
        try:
            print(f"{run.folder}: {run.run()}")
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            status = SOME_FAILED
    return status


if __name__ == "__main__":
    sys.exit(main())
