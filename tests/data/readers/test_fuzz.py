"""Damaged files of every format: refused by name or read, never a crash, a hang, a library's error or a pickle."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.readers.fuzzing import ENDS, TARGETS, Outcome, count_outcomes, run_cases


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    return run_cases(tmp_path_factory.mktemp("fuzz"), effort=0.1)


def test_every_case_is_refused_by_name_or_read(outcomes: list[Outcome]) -> None:
    wrong = [outcome for outcome in outcomes if outcome.end not in ("refused", "valid")]
    assert not wrong, "\n".join(f"{o.target}, {o.case}: {o.end}: {o.detail}" for o in wrong)


def test_the_cases_are_many_and_of_every_kind(outcomes: list[Outcome]) -> None:
    assert len(outcomes) > 50 * len(TARGETS)
    for name in TARGETS:
        mine = {o.case: o.end for o in outcomes if o.target == name}
        assert mine["untouched"] == "valid"
        for case in ("empty", "in truth text", "in truth noise", "in truth zeros", "in truth a pickle"):
            assert mine[case] == "refused"
        for kind in ("cut to", "bit at", "bytes", "run at", "lost at", "added at", "in truth"):
            assert any(case.startswith(kind) for case in mine), f"{name}: no case {kind!r}"
        assert mine["cut to 1"] == "refused"


def test_counts(outcomes: list[Outcome]) -> None:
    table = count_outcomes(outcomes)
    assert list(table) == list(TARGETS)
    assert sum(sum(row.values()) for row in table.values()) == len(outcomes) - len(TARGETS)
    assert all(tuple(row) == ENDS and row["refused"] > 0 for row in table.values())


def test_a_crash_a_hang_a_bare_error_and_a_pickle_are_seen(tmp_path: Path) -> None:
    """The harness itself, with a reader that does all that a reader must not."""
    (tmp_path / "run.py").write_text(
        "import os, pickle, sys, time\n"
        "from tests.data.readers import fuzzing as f\n"
        "def read(paths):\n"
        "    data = paths[0].read_bytes()\n"
        "    if data == b'': os.abort()\n"
        "    if data == bytes(4096): time.sleep(60)\n"
        "    if data.startswith(b'subject'): raise KeyError('x')\n"
        "    if b'touch' in data: pickle.loads(data)\n"
        "    return [[[1]]]\n"
        "def make(folder):\n"
        "    (folder / 'a').write_bytes(bytes(100))\n"
        "    return [folder / 'a']\n"
        "f.TARGETS.clear()\n"
        "f.TARGETS['bad'] = f.Target(make, read)\n"
        "f.SECONDS = 1\n"
        "f._main(f.Path(sys.argv[1]), 0.1, ['bad'])\n"
    )
    ends = {o.case: o.end for o in run_cases(_folder(tmp_path), script=tmp_path / "run.py", names=["bad"])}
    assert ends["empty"] == "crash"
    assert ends["in truth zeros"] == "too slow"
    assert ends["in truth text"] == ends["in truth a pickle"] == "other error"
    assert ends["untouched"] == ends["in truth noise"] == "valid"


def _folder(tmp_path: Path) -> Path:
    folder = tmp_path / "cases"
    folder.mkdir()
    return folder
