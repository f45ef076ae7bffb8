"""``grn-monai study``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grn_monai.commands.common import OK, SOME_FAILED, add_parser

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grn_monai.study import Plan, Run

__all__ = ["add"]


def add(commands: Any) -> None:
    """Adds the command."""
    parser = add_parser(
        commands,
        "study",
        help="train and score a grid of methods, label fractions and seeds",
        description="Train and score methods × fractions of the labels × seeds over one cohort, one folder each, as a\n"
        "YAML file plans it (studies/*.yaml; docs/study.md says what may stand in one). Every run is a bundle\n"
        "run through `python -m monai.bundle`; `--dry-run` prints the commands.\n\n"
        "What is finished is not repeated, and a training that was cut goes on from its last epoch, so the\n"
        "same command resumes a study after Ctrl-C, a kill or a power cut, and tries failed runs again. A run\n"
        "that fails is recorded (status.json, train.log) and the others go on. Several calls may work at one\n"
        "study at the same time, also from several machines on a shared folder.\n\n"
        "The plan is checked before anything starts. OUTPUT/study.json holds it, OUTPUT/runs/METHOD/FRACTION/\n"
        "seed_N/ the runs. `grn-monai report STUDY.yaml` makes tables and figures of what is there.",
        epilog="examples:\n"
        "  grn-monai study studies/smoke.yaml\n"
        "  grn-monai study studies/laptop.yaml --jobs 2\n"
        "  grn-monai study studies/laptop.yaml --list\n"
        "  grn-monai study studies/laptop.yaml --only unet --only 'grn_*/5pct' --train-only\n"
        "  grn-monai study studies/papers.yaml --only grn_plus/5pct/seed_0   # one job of a cluster",
        status="exit status: 0 all done, 1 some runs failed (they are listed), 2 bad input, 130 or 143 stopped",
    )
    parser.add_argument("study", metavar="STUDY.yaml", help="the plan")
    parser.add_argument("--out", metavar="FOLDER", help="where to write (default: `output` in the plan)")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="METHOD[/FRACTION[/seed_N]]",
        help="only these runs, such as unet, 'grn_*/5pct' or unet/5pct/seed_0; may be given several times",
    )
    parser.add_argument("--jobs", type=_count, default=1, metavar="N", help="runs at a time (default: 1)")
    parser.add_argument("--threads", type=_count, metavar="N", help="threads of each run (default: cores / jobs)")
    parser.add_argument("--train-only", action="store_true", help="leave the scoring to a later call")
    parser.add_argument(
        "--keep-checkpoints",
        action="store_true",
        help="keep checkpoint.pt of finished runs, to give them more epochs later",
    )
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--list", action="store_true", help="show the runs and their states, and start nothing")
    shown.add_argument("--dry-run", action="store_true", help="print the commands that would run, and start nothing")
    shown.add_argument("--prepare", action="store_true", help="make the cohort, and start no run")
    parser.add_argument("--json", action="store_true", help="with --list: as JSON, for other programs")
    parser.set_defaults(run=_run)


def _count(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1")
    return number


def _run(options: argparse.Namespace) -> int:
    from grn_monai.study import load_plan, select

    plan = load_plan(Path(options.study), Path(options.out) if options.out else None)
    runs = select(plan, options.only)
    if options.list:
        return _list(plan, runs, options.json)
    if options.dry_run:
        return _dry_run(plan, runs, options.train_only)

    from grn_monai.study.board import Board
    from grn_monai.study.pool import Settings, work

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = options.threads or max(1, cores // options.jobs)
    board = Board(plan, sys.stdout, options.jobs)
    settings = Settings(options.jobs, threads, options.train_only, options.keep_checkpoints)
    status = work(plan, runs, settings, board, options.prepare)
    failed = [job for job in board.all if job.state == "failed"]
    if failed:
        print(f"{len(failed)} of {len(board.all)} runs failed:", file=sys.stderr)
        for job in failed:
            print(f"  {job.run.id}: {job.error}", file=sys.stderr)
    if skipped := sorted({job.run.method.key for job in board.all if job.state == "skipped"}):
        print(f"skipped, for want of packages: {', '.join(skipped)}", file=sys.stderr)
    if status:
        print("stopped; the same command goes on", file=sys.stderr)
        return status
    if not options.prepare and not options.train_only:
        print(f"tables and figures: grn-monai report {plan.output}")
    return SOME_FAILED if failed else OK


def _list(plan: Plan, runs: Sequence[Run], as_json: bool) -> int:
    from grn_monai.study.overview import overview, table

    entries = overview(plan, runs)
    _print(
        json.dumps({"name": plan.name, "output": str(plan.output), "runs": entries}, indent=2)
        if as_json
        else table(plan, entries)
    )
    return OK


def _dry_run(plan: Plan, runs: Sequence[Run], train_only: bool) -> int:
    from grn_monai.study.overview import commands

    _print("\n".join(commands(plan, runs, train_only)))
    return OK


def _print(text: str) -> None:
    """Print, also to a reader that leaves early (`| head`)."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
