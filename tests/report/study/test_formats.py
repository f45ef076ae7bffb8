from __future__ import annotations

import csv
import io
import re

import pytest

from grn_monai.report.study.formats import (
    Entry,
    StudyTable,
    csv_table,
    escape_tex,
    html_table,
    markdown_table,
    tex_table,
    text_entry,
)

TABLE = StudyTable(
    "layers_12.5pct",
    "Dice & 5 % of x_1",
    ["overall", "muscle | deep"],
    [
        (
            "U-Net",
            [Entry(50.04, half=0.55, below=("subjects 40.0 to 60.0",), parts={"seeds": 2}), Entry(1.25, digits=2)],
        ),
        (
            "[a_b] #1",
            [Entry(-7.96, signed=True, best=True, marks="*†", parts={"note": "a, b"}), text_entry("–", "failed")],
        ),
        ("*late*", [Entry(), Entry(None, half=1.0)]),
    ],
    ["A note with <5 % and a|b."],
)


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_has_figures_and_their_parts() -> None:
    rows = read(csv_table(TABLE))
    assert list(rows[0]) == ["method", "overall", "overall: seeds", "overall: note", "muscle | deep"]
    assert rows[0]["overall"] == "50.04"
    assert rows[0]["overall: seeds"] == "2"
    assert rows[1]["overall: note"] == "a, b"
    assert rows[1]["muscle | deep"] == "–"
    assert rows[2]["overall"] == ""


def test_all_formats_show_the_same_figures() -> None:
    markdown = [line.split(" | ") for line in markdown_table(TABLE).splitlines() if line.startswith("| ")]
    tex = [line for line in tex_table(TABLE).splitlines() if line.endswith(r"\\")][1:]
    html = html_table(TABLE)
    plain = read(csv_table(TABLE))
    for i, (name, cells) in enumerate(TABLE.rows):
        for j, cell in enumerate(cells):
            shown = cell.shown.replace("−", "-")
            in_tex = tex[i].removesuffix(r" \\").split(" & ")[j + 1]
            in_tex = in_tex.replace("$-$", "-").replace(r"$\pm$", "±").replace("--", "–")
            assert shown in in_tex
            assert shown in markdown[i + 2][j + 1].replace("−", "-")
            assert html.rows[i][1][j].text == cell.shown + cell.marks
            if cell.value is not None:
                assert float(plain[i][TABLE.columns[j]]) == pytest.approx(cell.value)
        assert plain[i]["method"] == name


def test_markdown_of_special_characters() -> None:
    text = markdown_table(TABLE)
    assert r"| \[a\_b\] #1 | **−8.0**\*† | –<br>failed |" in text
    assert r"muscle \| deep" in text
    assert r"A note with \<5 % and a\|b." in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {4}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b & 5 %", r"a\_b \& 5 \%"),
        ("#1 $x {y} ^z ~", r"\#1 \$x \{y\} \textasciicircum{}z \textasciitilde{}"),
        ("\\x", r"\textbackslash{}x"),
        ("−1 ± 2 – †", r"$-$1 $\pm$ 2 -- \dag{}"),
        ("< 0.001\n[a]", r"\textless{} 0.001 {[}a{]}"),
        ("5\u202fmm", r"5\,mm"),
        ("é", "é"),
    ],
)
def test_tex_escapes(text: str, expected: str) -> None:
    assert escape_tex(text) == expected


def test_tex_is_balanced_and_every_row_has_its_columns() -> None:
    text = tex_table(TABLE)
    bare = re.sub(r"\\[{}]", "", text.replace(r"\\", ""))
    assert bare.count("{") == bare.count("}")
    assert len(re.findall(r"(?<!\\)\$", text)) % 2 == 0
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 1 + len(TABLE.rows)
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {2}
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    # A row that starts with [ or * would be read as an option of the line break before it.
    assert not re.search(r"^\s*[\[*]", body, re.MULTILINE)
    assert r"\textbf{$-$8.0}\textsuperscript{{*}\dag{}}" in text
    assert r"\shortstack[r]{50.0 $\pm$ 0.6\\{\scriptsize subjects 40.0 to 60.0}}" in text
    assert r"\label{tab:layers-12-5pct}" in text


def test_spreadsheets_run_no_cell_and_every_file_says_where_the_scans_come_from() -> None:
    rows = [
        ("=HYPERLINK(1)", [text_entry("+cmd"), Entry(-7.96, parts={"note": "@x"})]),
        ("-2", [text_entry("-3.5"), Entry()]),
    ]
    table = StudyTable("t", "A\nB", ["=1+1", "b"], rows, origin="Simulated cohort.")
    plain = read(csv_table(table))
    assert list(plain[0]) == ["method", "'=1+1", "b", "b: note", "origin"]
    assert list(plain[0].values()) == ["'=HYPERLINK(1)", "'+cmd", "-7.96", "'@x", "Simulated cohort."]
    assert list(plain[1].values())[:2] == ["-2", "-3.5"]  # numbers stay numbers
    assert "Simulated cohort." in markdown_table(table)
    assert markdown_table(table).startswith("### A B\n")
    assert "Simulated cohort." in tex_table(table)
