"""The cohort of a study: simulated once, however many processes work at the study."""

from __future__ import annotations

import time
from collections.abc import Callable

from grn_monai.errors import InputError
from grn_monai.study.commands import simulation_command
from grn_monai.study.plan import Plan
from grn_monai.study.process import Child
from grn_monai.study.status import Lock

__all__ = ["make_cohort"]


def make_cohort(plan: Plan, threads: int, stopped: Callable[[], bool], say: Callable[[str], None]) -> None:
    """Simulate the cohort where it is missing, and see that one that is there is the one that the study describes.

    Args:
        plan: the study.
        threads: of each process.
        stopped: whether to give up.
        say: told what is done.

    Raises:
        InputError: the simulation failed, or the folder holds another cohort.
    """
    if plan.simulate is None:
        return
    command = simulation_command(plan)
    file = plan.cohort / "dataset.json"
    if file.is_file() and not (command.folder / "data_prep").is_dir():
        return  # bundles without their repository: the cohort was brought along
    lock = Lock(plan.cohort.with_name(f".{plan.cohort.name}.lock"))
    told = False
    while not lock.acquire():
        if stopped():
            return
        if not told:
            say(f"{plan.cohort} is being made by another process: waiting for it")
            told = True
        time.sleep(0.5)
    try:
        if not file.is_file():
            say(f"simulating the cohort {plan.cohort}")
        log = plan.output / "cohort.log"
        child = Child(command, log, threads, (lock.fd,))
        while (code := child.code()) is None:
            if stopped():
                child.stop()
                return
            time.sleep(0.05)
        if code:
            found = f"a simulation that failed ({child.error()})"
            mend = "Correct `cohort` in the study's file, or give it another folder as `path`."
            raise InputError(plan.file, found, f"the cohort of `simulate` in {plan.cohort}", f"{mend} Log: {log}")
    finally:
        lock.release()
