from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from grn_monai.errors import InputError
from grn_monai.report.agreement import load_runs, parse_run
from tests.report.agreement.runs import MUSCLES, random_rows, row, write


def test_the_syntax_of_a_run(tmp_path: Path) -> None:
    folder = write(tmp_path / "a=b" / "evaluation", random_rows(0))
    run = parse_run(f"dimension=2D, augmentation = no:{folder}")
    assert run.levels == {"dimension": "2D", "augmentation": "no"}
    assert run.file == folder / "muscles.csv"
    assert parse_run(str(folder)).levels == {}
    assert parse_run(str(folder.parent)).file == run.file  # a bundle's output folder; "=" in it is no level
    assert parse_run(f"x=1:{run.file}").file == run.file


@pytest.mark.parametrize("head", ["dimension=", "=2D", "a=1,a=2", "muscle=1", "a=1,,b=2"])
def test_faulty_levels(head: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Write a run as FOLDER, or FACTOR=LEVEL"):
        parse_run(f"{head}:{write(tmp_path / 'run', random_rows(0))}")


def test_missing_folders_and_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        parse_run(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"no muscles\.csv"):
        parse_run(f"a=1:{tmp_path}")


def test_values_lie_where_they_belong(tmp_path: Path) -> None:
    a = write(tmp_path / "a", [row("s1", "left", 0.5), row("s1", "right", 0.6), row("s2", "left", 0.7)])
    b = write(tmp_path / "b", [row("s2", "right", 0.0), row("s2", "left", 0.8), row("s1", "left", 0.9)])
    data = load_runs([f"d=2D,x=n:{a}", f"x=n,d=3D:{b}"])  # factors in any order
    assert data.factors == {"d": ["2D", "3D"], "x": ["n"]}
    assert data.conditions == [("2D", "n"), ("3D", "n")]
    assert data.name(1) == "d 3D, x n"
    assert (data.key(0), data.key(1)) == ("1-d-2d-x-n", "2-d-3d-x-n")
    assert (data.subjects, data.muscles) == (["s1", "s2"], ["left", "right"])
    np.testing.assert_array_equal(data.of("dice"), [[[0.5, 0.6], [0.7, np.nan]], [[0.9, np.nan], [0.8, 0.0]]])
    assert data.present[1].tolist() == [[True, False], [True, True]]
    assert np.isnan(data.of("conformity")[1, 1, 1])
    assert data.notes == ["d 2D, x n: without all muscles of s2.", "d 3D, x n: without all muscles of s1."]


def test_scans_of_a_subject_are_averaged(tmp_path: Path) -> None:
    inf = float("inf")
    rows = [row("s1", "m", 0.8, scan="a"), row("s1", "m", 0.0, scan="b", hd95_mm=inf)]
    data = load_runs([str(write(tmp_path / "a", [*rows, row("s2", "m", 0.0, hd95_mm=inf)]))])
    assert data.of("dice")[0, :, 0] == pytest.approx([0.4, 0])
    assert data.of("conformity")[0, 0, 0] == pytest.approx(0.5)  # of the scan where it is defined
    assert data.of("hd95_mm")[0, :, 0].tolist() == [4.2, inf]
    assert "up to 2 scans" in data.notes[0]


def test_runs_with_the_same_levels_are_folds(tmp_path: Path) -> None:
    rows = random_rows(0)
    folds = [write(tmp_path / "f0", rows[:6]), write(tmp_path / "f1", rows[6:])]
    data = load_runs([f"net=a:{fold}" for fold in folds])
    assert len(data.conditions) == 1
    assert len(data.subjects) == 6
    assert data.present.all()
    with pytest.raises(InputError, match=r"psoas left of scan s0 of subject s0 a second time.*Tell the models apart"):
        load_runs([str(folds[0]), str(folds[0])])


def test_what_cannot_be_read_together(tmp_path: Path) -> None:
    a = write(tmp_path / "a", random_rows(0))
    b = write(tmp_path / "b", [row("s1", "autochthon left", 0.9)])
    with pytest.raises(InputError, match="found the muscles autochthon left; expected psoas left"):
        load_runs([f"x=1:{a}", f"x=2:{b}"])
    with pytest.raises(InputError, match=r"found the factors y; expected those of the first run: x"):
        load_runs([f"x=1:{a}", f"y=1:{b}"])
    with pytest.raises(InputError, match=r"found the factors \(none\)"):
        load_runs([f"x=1:{a}", str(b)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("subject,scan\na,b\n", "no column muscle, dice"),
        ("", "no rows"),
        (None, r"'high' as dice in line 2"),
        (b"\xff\xfe\x00", "no readable text"),
    ],
)
def test_faulty_files(text: str | bytes | None, message: str, tmp_path: Path) -> None:
    folder = write(tmp_path, [row("s1", "m", 0.5)])
    file = folder / "muscles.csv"
    if text is None:
        text = file.read_text().replace(",0.5,", ",high,", 1)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message):
        load_runs([str(folder)])


def test_other_truths_are_noted(tmp_path: Path) -> None:
    runs = [f"x={i}:{write(tmp_path / str(i), random_rows(i))}" for i in range(2)]
    assert load_runs(runs).notes == []
    write(tmp_path / "1", random_rows(1, s2={"truth": 70.0}))
    assert load_runs(runs).notes == [
        "Subject s2: the true volumes differ by more than 1 % between the runs, so these were scored against other "
        "truths or on other grids."
    ]
    assert load_runs(runs[:1]).muscles == list(MUSCLES)
