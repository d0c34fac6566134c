"""`llm export`: the folder it creates, its messages and errors."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Llm = Callable[..., subprocess.CompletedProcess[Any]]


@pytest.mark.slow
def test_a_model_is_exported_to_keras(llm_process: Llm, model_directory: Path, tmp_path: Path) -> None:
    pytest.importorskip("keras")
    result = llm_process("export", model_directory, "--format", "keras", "-o", "out")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "wrote out: model.keras, tokenizer.json\n")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model.keras", "tokenizer.json"]


@pytest.mark.parametrize("export_format", ["gguf", "huggingface"])
def test_a_format_that_does_not_support_the_architecture_is_refused(
    llm: Llm, model_directory: Path, tmp_path: Path, export_format
) -> None:
    result = llm("export", model_directory, "--format", export_format, "-o", "out")
    assert (result.returncode, result.stdout) == (2, "")
    assert "the architecture lstm; keras takes every network" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_path_without_a_model_is_refused(llm: Llm, tmp_path: Path) -> None:
    result = llm("export", "nowhere", "--format", "keras", "-o", "out")
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (66, "", 1)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_empty_is_not_changed(llm: Llm, model_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("precious")
    result = llm("export", model_directory, "--format", "keras", "-o", "out")
    assert (result.returncode, result.stderr.count("\n")) == (73, 1)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]
