"""`study.json`: the plan as it was resolved, and with what it was run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import grn_monai
from grn_monai.files import write_whole
from grn_monai.study.plan import Plan
from grn_monai.study.status import read_json

__all__ = ["StudyRecord"]

PROVENANCE = "import json; from grn_monai.handlers import provenance; print(json.dumps(provenance()))"


class StudyRecord:
    """Writes `study.json` at once, and again when the versions are known.

    They come from a process of its own: the runner does without torch, and does not wait for it.

    Args:
        plan: the study.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan, self.file = plan, plan.output / "study.json"
        self._write(read_json(self.file).get("provenance", {}))
        self._process: subprocess.Popen[str] | None = subprocess.Popen(
            [sys.executable, "-c", PROVENANCE],
            cwd=Path(grn_monai.__file__).parents[1],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # not in the way of Ctrl-C
        )

    def poll(self) -> None:
        """Write the versions down once they are known."""
        if self._process is not None and self._process.poll() is not None:
            self.finish(wait=True)

    def finish(self, wait: bool) -> None:
        """Bring it to its end.

        Args:
            wait: for the versions; else those of an earlier call stay, if there was one.
        """
        process, self._process = self._process, None
        if process is None:
            return
        if not wait:
            process.kill()
        text, _ = process.communicate()
        if process.returncode == 0:
            self._write(json.loads(text.strip().splitlines()[-1]))

    def _write(self, provenance: object) -> None:
        write_whole(self.file, json.dumps({**self.plan.record(), "provenance": provenance}, indent=2) + "\n")
