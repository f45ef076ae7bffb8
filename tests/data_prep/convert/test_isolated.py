from __future__ import annotations

import os
import sys
import time
from typing import Any

import numpy as np
import pytest

from data_prep.convert.isolated import Limits, run_isolated
from grn_monai.errors import InputError


def work(job: str) -> Any:
    """What the child does, by the name of the job."""
    if job == "crash":
        os.abort()
    if job == "hang":
        time.sleep(60)
    if job == "memory":
        return float(np.ones(2**30, np.float64).sum())  # 8 GiB
    if job == "input":
        raise InputError("a.mha", "nothing", "something", "Mend it.")
    if job == "bug":
        raise KeyError("surprise")
    if job == "leave":
        sys.exit(3)
    return job.upper()


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's here")
def test_every_way_to_fail_is_one_line_and_disturbs_no_other() -> None:
    jobs = ["a", "crash", "b", "hang", "input", "memory", "bug", "leave", "c"]
    start = time.monotonic()
    ended = list(run_isolated(work, jobs, workers=2, limits=Limits(memory_gib=1, seconds=6)))
    assert time.monotonic() - start < 30
    assert sorted(outcome.job for outcome in ended) == sorted(jobs)
    outcomes = {outcome.job: outcome for outcome in ended}
    assert {job: outcomes[job].result for job in "abc"} == {"a": "A", "b": "B", "c": "C"}
    said = {job: outcome.problem for job, outcome in outcomes.items() if outcome.problem}
    assert set(said) == set(jobs) - set("abc")
    assert "SIGABRT" in said["crash"]
    assert "not finished after 6 s" in said["hang"]
    assert said["input"] == "a.mha: found nothing; expected something. Mend it."
    assert "1 GiB" in said["memory"]
    assert "KeyError" in said["bug"]
    assert "exit code 3" in said["leave"]


def test_an_impossible_number_of_workers_is_refused() -> None:
    with pytest.raises(InputError, match="--workers"):
        list(run_isolated(work, ["a"], workers=0))
