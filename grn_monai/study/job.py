"""One run under way: its training, then its evaluations, each a child process."""

from __future__ import annotations

import time

from grn_monai.errors import InputError, listed
from grn_monai.files import clear_leftovers
from grn_monai.study import state
from grn_monai.study.commands import Command, evaluation_command, training_command
from grn_monai.study.plan import Plan, Run
from grn_monai.study.process import Child
from grn_monai.study.status import LOCK_FILE, Lock, now, read_status, write_status

__all__ = ["Job", "stage_command"]


def stage_command(plan: Plan, run: Run, stage: str) -> Command:
    """The command of a stage, `training` or `SECTION_MODE`."""
    if stage == "training":
        return training_command(plan, run)
    section, mode = stage.rsplit("_", 1)
    return evaluation_command(plan, run, section, mode)


class Job:
    """Brings a run to its end, without waiting: call `step` now and then.

    Args:
        plan, run: what to do.
        digest: of the cohort.
        threads: of each process.
        train_only: leave the evaluations to a later call.
        keep_checkpoints: leave the state from which a training goes on, when the run is done.

    Attributes:
        state: `waiting` before and after a stop, `running`, `done` (with `train_only`: `trained`), `failed`, `skipped`.
        error: why it failed or was skipped.
        stage: what it does now, or did last.
        worked: whether anything had to be done.
    """

    def __init__(
        self,
        plan: Plan,
        run: Run,
        digest: str | None,
        threads: int = 1,
        train_only: bool = False,
        keep_checkpoints: bool = False,
    ) -> None:
        self.plan, self.run, self.digest, self.threads = plan, run, digest, threads
        self.train_only, self.keep_checkpoints = train_only, keep_checkpoints
        self.folder = plan.folder(run)
        self.state, self.stage, self.error, self.worked = "waiting", "training", "", False
        self.begun = 0.0
        self._started = ""
        self._child: Child | None = None
        self._tried: set[str] = set()
        self._lock = Lock(self.folder / LOCK_FILE)

    def start(self) -> bool:
        """Take the run up, unless another process has it.

        Returns:
            whether it was free.
        """
        try:
            if not self._lock.acquire():
                return False
        except InputError as error:
            self._end("failed", str(error))
            return True
        self.begun, self._started, self.state = time.monotonic(), now(), "running"
        self._next()
        return True

    def step(self) -> bool:
        """Look after the child; start the next stage when it has ended.

        Returns:
            whether the run has ended.
        """
        if self._child is not None and (code := self._child.code()) is not None:
            child, self._child = self._child, None
            if code:
                self._end("failed", child.error())
            else:
                self._next()
        return self.state != "running"

    def stop(self, why: str) -> None:
        """End the child; the run goes on at the next call, its training from its checkpoint."""
        if self._child is not None:
            self._child.stop()
            self._child = None
        if self.state == "running":
            self._end("waiting", why)

    def _next(self) -> None:
        try:
            self._go_on()
        except (InputError, OSError) as error:
            self._end("failed", str(error))
        except Exception as error:  # of one run, such as a record that is damaged: the others go on
            self._end("failed", f"{type(error).__name__}: {error}")

    def _go_on(self) -> None:
        try:
            left = state.todo(self.plan, self.run, self.digest)
        except Exception:  # of other settings: it stays the run of the cohort it was trained on
            self.digest = read_status(self.folder).get("cohort")
            raise
        if not left:
            if self.worked and not self.keep_checkpoints:  # what an earlier call kept stays
                for file in self.folder.glob("checkpoint*.pt"):
                    file.unlink()
            return self._end("done")
        self.stage = left[0]
        if missing := self.run.method.missing():
            return self._end("skipped", f"skipped: needs {listed(missing)}, which is not installed")
        if self.stage != "training" and self.train_only:
            return self._end("trained")
        if self.stage in self._tried:
            log = self.folder / _log_name(self.stage)
            return self._end("failed", f"{self.stage} ended well but left no complete results: see {log}")
        self._tried.add(self.stage)
        for folder in (self.folder, self.folder / "models"):
            clear_leftovers(folder)
        self.worked = True
        self._write("running")
        command = stage_command(self.plan, self.run, self.stage)
        keep = (self._lock.fd,)
        self._child = Child(command, self.folder / _log_name(self.stage), self.threads, keep)

    def _write(self, state_now: str, error: str | None = None) -> None:
        # The records do not count the start of processes, nor what failed.
        spent = max(state.seconds(self.plan, self.run), time.monotonic() - self.begun if self.worked else 0.0)
        write_status(self.folder, state_now, self.stage, error, self._started or now(), spent, self.digest)

    def _end(self, state_now: str, error: str = "") -> None:
        self.state, self.error = state_now, error
        before = read_status(self.folder)
        recorded = {"trained": "waiting", "skipped": "failed"}.get(state_now, state_now)
        try:
            if recorded != before["state"] or self.worked or error:
                self._write(recorded, error or None)
        except Exception as failure:  # a full disk, a damaged record: the list at the end still tells of the run
            self.error = f"{error}; {failure}" if error else str(failure)
        self._lock.release()


def _log_name(stage: str) -> str:
    return "train.log" if stage == "training" else f"evaluate_{stage}.log"
