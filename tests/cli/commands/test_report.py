"""`llm report` as a command: its file, what it refuses, and that TensorFlow is not imported."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quickfox.files import atomic
from written_runs import write_run

Llm = Callable[..., subprocess.CompletedProcess[Any]]


def test_the_report_is_written_to_the_current_folder_or_a_given_file(llm: Llm, tmp_path: Path) -> None:
    write_run(tmp_path, "run")
    result = llm("report", "run")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "wrote report.html\n")
    (tmp_path / "other.html").write_text("old")
    assert llm("report", "run/run.json", "-o", "other.html").returncode == 0
    assert (tmp_path / "other.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(("path", "status"), [("nowhere", 66), ("folder", 66), ("file.txt", 65), ("damaged", 65)])
def test_what_is_not_a_run_is_refused_in_one_line(llm: Llm, tmp_path: Path, path: str, status: int) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.txt").write_text("text")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "run.json").write_text("{")
    result = llm("report", path)
    assert (result.returncode, result.stderr.count("\n")) == (status, 1)
    assert not (tmp_path / "report.html").exists()


def test_without_a_run_the_usage_is_shown(llm: Llm) -> None:
    assert llm("report").returncode == 2


def test_a_file_that_cannot_be_created_is_refused(llm: Llm, tmp_path: Path) -> None:
    write_run(tmp_path, "run")
    (tmp_path / "folder").mkdir()
    for output in ("folder", "missing/report.html"):
        result = llm("report", "run", "-o", output)
        assert (result.returncode, result.stderr.count("\n")) == (73, 1)


def test_on_a_full_disk_the_file_is_unchanged(llm: Llm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path, "run")
    (tmp_path / "report.html").write_text("old")

    def fail(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic, "sync", fail)
    result = llm("report", "run")
    assert (result.returncode, result.stderr.count("\n")) == (74, 1)
    assert (tmp_path / "report.html").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus <em>.txt", "report.html", "run"]


def test_tensorflow_is_not_imported(tmp_path: Path) -> None:
    run = write_run(tmp_path, "run")
    code = f"""
import sys
from pathlib import Path
from quickfox.report.page import render_report
render_report([Path({str(run)!r})])
assert not {{"tensorflow", "keras", "rich"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
