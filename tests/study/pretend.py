"""Pretends to be a bundle: leaves, in a blink, what a training or an evaluation leaves. Run as a script.

Also the command line of `grn-monai study` over such bundles, as a process of its own that can be killed:
`python -m tests.study.pretend STUDY.yaml … --behave '{"RUN_ID STAGE": {"sleep": 1.0}}'`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def train(folder: Path, order: dict[str, Any]) -> None:
    """Epoch by epoch, from the checkpoint where there is one."""
    checkpoint, record = folder / "checkpoint.pt", {"config": order["config"], "seconds": 1.0}
    begin = int(checkpoint.read_text()) if checkpoint.is_file() else 0
    (folder / "models").mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps({**record, "status": "running"}))
    for epoch in range(begin + 1, order["epochs"] + 1):
        time.sleep(order.get("sleep", 0.0))
        print(f"epoch {epoch}", flush=True)
        with open(folder / "history.csv", "a" if epoch > 1 else "w") as file:
            file.write(f"{'epoch' + chr(10) if epoch == 1 else ''}{epoch}\n")
        checkpoint.write_text(str(epoch))
    (folder / "models" / "model.pt").write_bytes(b"weights")
    (folder / "run.json").write_text(json.dumps({**record, "status": "completed", "epochs": order["epochs"]}))


def evaluate(folder: Path, order: dict[str, Any]) -> None:
    """The scores of one section and mode."""
    time.sleep(order.get("sleep", 0.0))
    folder.mkdir(parents=True, exist_ok=True)
    if order.get("complete", True):
        (folder / "metrics.json").write_text("{}")
    (folder / "run.json").write_text(json.dumps({"status": "completed", "config": order["config"], "seconds": 1.0}))


def pretended(behave: Mapping[str, Mapping[str, Any]]) -> Callable[..., Any]:
    """A `stage_command` whose commands run this file; behaviour by run id and stage."""
    from grn_monai.study.commands import Command

    def stage_command(plan: Any, run: Any, stage: str) -> Command:
        values = {k: v for k, v in run.method.bundle.values(["train"]).items() if not k.startswith("+")}
        config = {**values, "dataset_dir": str(plan.cohort), "fraction": run.fraction, "seed": run.seed, **run.options}
        folder = plan.folder(run)
        if stage != "training":
            section, mode = stage.rsplit("_", 1)
            folder, config["section"] = plan.evaluation(run, section, mode), section
        order = {"stage": stage, "folder": str(folder), "config": config, "epochs": run.epochs}
        order |= behave.get(f"{run.id} {stage}", {})
        return Command((sys.executable, "-S", __file__, json.dumps(order)), Path(__file__).parent)

    return stage_command


def obey(order: dict[str, Any]) -> int:
    """Do what one command was given to do."""
    print(order.get("say", "begins"), flush=True)
    if code := order.get("code"):
        return int(code)
    (train if order["stage"] == "training" else evaluate)(Path(order["folder"]), order)
    return 0


def main(arguments: list[str]) -> int:
    """`grn-monai study` over pretended bundles."""
    from grn_monai.cli import main as cli
    from grn_monai.study import job, record

    behave = json.loads(arguments.pop(arguments.index("--behave") + 1))
    arguments.remove("--behave")
    job.stage_command = pretended(behave)
    record.PROVENANCE = "print('{}')"
    return cli(["study", *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) if "--behave" in sys.argv else obey(json.loads(sys.argv[1])))
