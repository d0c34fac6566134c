"""`llm info` of a model, of a vocabulary and of other files; test_train.py tests it with runs."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
