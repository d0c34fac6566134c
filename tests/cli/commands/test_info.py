"""`llm info` of a model, of a vocabulary and of other files; test_train.py tests it with runs."""

import dataclasses
import math
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quickfox.training.run.history import read_history
from quickfox.training.run.record import read_record, write_record
from written_runs import write_run

Llm = Callable[..., subprocess.CompletedProcess[Any]]


def test_a_model_is_shown(llm: Llm, model_directory: Path) -> None:
    result = llm("info", model_directory)
    rows = {line.split("  ")[0]: line.split("  ")[-1].strip() for line in result.stdout.splitlines()}
    assert (result.returncode, result.stderr) == (0, "")
    assert rows["architecture"] == "lstm"
    assert rows["hidden_dim"] == "7"
    assert rows["validation loss"] == "2.5000"
    assert rows["training state"] == "no"
    assert rows["characters"] == "\\n abcdefghijklmnopqrstuvwxyzßä"


def test_a_vocabulary_is_shown(llm: Llm) -> None:
    llm("build-vocab", "-", input="fox\n")
    result = llm("info", "vocab.json")
    assert (
        result.stdout == "vocabulary  vocab.json\nsize        5\ntokenizer   char\nmin_count   1\ncharacters  \\nfox\n"
    )


def test_other_files_are_refused(llm: Llm, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("no vocabulary")
    (tmp_path / "folder").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text('{"a":' * 3000 + "1" + "}" * 3000)
    for path, status in (("text.txt", 65), ("folder", 65), ("run", 65), ("nowhere", 66)):
        result = llm("info", path)
        assert (result.returncode, result.stdout) == (status, "")
        assert result.stderr.count("\n") == 1


def test_without_runs_the_message_names_the_command_to_train(llm: Llm) -> None:
    result = llm("info")
    assert (result.returncode, result.stdout) == (66, "")
    assert "llm train" in result.stderr


def test_a_changed_record_is_shown_with_a_warning(llm: Llm, tmp_path: Path) -> None:
    record = write_run(tmp_path, "run") / "run.json"
    record.write_text(record.read_text().replace('"steps": 30', '"steps": 31'))
    result = llm("info", "run")
    assert (result.returncode, result.stderr.count("\n")) == (0, 1)
    assert "run.json: damaged: its sha256 does not match its content" in result.stderr
    assert "31" in result.stdout


def test_a_run_has_a_curve_and_a_table_of_validations(llm: Llm, tmp_path: Path) -> None:
    write_run(tmp_path, "run")
    result = llm("info", "run")
    assert (result.returncode, result.stderr) == (0, "")
    curve, table = result.stdout.partition("\n\n")[2].rsplit("\n\n", 1)
    assert curve.count("o") - curve.splitlines()[0].count("o") == 3
    assert re.search("[\u2801-\u28ff]", curve)
    assert [[*row.split()[:2], row.split()[3]] for row in table.splitlines()[1:]] == [
        [f"{step}", epoch, loss]
        for step, epoch, loss in zip((10, 20, 30), *validation_columns(tmp_path / "run"), strict=True)
    ]


def validation_columns(run: Path) -> tuple[list[str], list[str]]:
    validations = read_history(run).validations
    return [f"{each.epoch:.2f}" for each in validations], [f"{each.validation_loss:.4f}" for each in validations]


def test_runs_are_sorted_by_bits_per_byte(llm: Llm, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    for name, losses in (("a", (2.0,)), ("b", (1.0,)), ("old", (0.5,))):
        run = write_run(runs, name, losses=losses)
        record = read_record(run)
        corpus = record.corpus
        if name != "old":
            corpus = dataclasses.replace(corpus, validation_targets=100, validation_bytes=200)
        write_record(run, dataclasses.replace(record, corpus=corpus))
    header, *rows = (re.split(" {2,}", line) for line in llm("info").stdout.splitlines())
    assert header[:3] + header[7:8] == ["run", "model", "tokenizer", "bits per byte"]
    assert [(row[0], row[7]) for row in rows] == [
        ("runs/b", f"{1 / math.log(2) / 2:.4f}"), ("runs/a", f"{2 / math.log(2) / 2:.4f}"), ("runs/old", "-"),
    ]  # fmt: skip
