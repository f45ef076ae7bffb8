"""Every ```bash block of README and docs runs; commands that take long stand in ```console blocks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(language, code, id=f"{page.name}-{i}")
    for page in PAGES
    for i, (language, code) in enumerate(re.findall(r"```(bash|python)\n(.*?)```", page.read_text(), re.S))
]


def test_there_are_blocks_to_run() -> None:
    assert BLOCKS


@pytest.mark.parametrize(("language", "code"), BLOCKS)
def test_block_runs(language: str, code: str, tmp_path: Path) -> None:
    command = ["bash", "-euo", "pipefail", "-c", code] if language == "bash" else [sys.executable, "-c", code]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target
