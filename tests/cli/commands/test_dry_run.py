"""`llm train --dry-run`: prints the settings and the cost of a run, and leaves no files behind."""

import importlib.util
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Llm = Callable[..., subprocess.CompletedProcess[str]]

TEXT = "the quick brown fox jumps over the lazy dog\n" * 60
SMALL = ("--hidden-dim", "8", "--embedding-dim", "4", "--window", "4", "--batch-size", "4", "--threads", "2")

needs_tensorflow = pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="TensorFlow not installed")


@pytest.fixture
def fox(tmp_path: Path) -> Path:
    (tmp_path / "fox.txt").write_text(TEXT)
    return tmp_path


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


@needs_tensorflow
def test_prints_settings_and_cost_and_leaves_no_files(llm: Llm, fox: Path) -> None:
    result = llm("train", "fox.txt", "--dry-run", "--steps", "12", *SMALL, "--random-seed", "1")
    assert (result.returncode, result.stderr) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert list(lines) == ["run", "text", "model", "training", "machine", "memory", "time"]
    assert lines["run"] == "runs/fox"
    assert "1 layer of 8, embedding 4, vocabulary 29" in lines["model"]
    assert "GiB" in lines["memory"]
    assert "tokens/s" in lines["time"]
    assert names_in(fox) == ["fox.txt"]


@pytest.mark.slow
@needs_tensorflow
def test_json_equals_the_settings_of_the_real_run(llm: Llm, fox: Path) -> None:
    arguments = ["train", "fox.txt", "--tokenizer", "word", "--steps", "3", *SMALL, "--random-seed", "1", "--json"]
    planned = json.loads(llm(*arguments, "--dry-run").stdout)
    assert list(planned) == [
        "run",
        "parameters",
        "memory_bytes",
        "disk_bytes",
        "tokens_per_epoch",
        "epochs",
        "operations_per_token",
        "tokens_per_second",
        "seconds_per_epoch",
        "seconds",
        "validation_tokens",
        "validation_targets",
        "budget_seconds",
        "workers",
        "model",
        "training",
    ]
    assert names_in(fox) == ["fox.txt"]
    real = json.loads(llm(*arguments).stdout)
    record = json.loads((fox / real["run"] / "run.json").read_text())
    assert (planned["model"], planned["training"]) == (record["model"], record["training"])
    assert {name: planned[name] for name in ("run", "parameters", "epochs")} == {
        name: real[name] for name in ("run", "parameters", "epochs")
    }


@pytest.mark.slow
@needs_tensorflow
def test_modules_that_keras_imports_if_they_are_installed_are_left_out(
    llm_process: Llm, tmp_path: Path, environment: dict[str, str]
) -> None:
    for name in ("cv2", "matplotlib", "pandas", "sklearn"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')")
    result = llm_process(
        "train", "-", "--dry-run", "--quiet", input=TEXT, env={**environment, "PYTHONPATH": str(tmp_path)}
    )
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.slow
@needs_tensorflow
def test_a_budget_is_the_estimated_time_and_standard_input_leaves_no_files(llm_process: Llm, tmp_path: Path) -> None:
    result = llm_process(
        "train", "-", "--dry-run", "--json", "--quiet", "--budget", "2m", "--output", "deep/run", input=TEXT
    )
    planned = json.loads(result.stdout)
    assert (planned["run"], planned["budget_seconds"], planned["seconds"]) == ("deep/run", 120.0, 120.0)
    assert names_in(tmp_path) == []


@needs_tensorflow
def test_a_model_too_large_for_memory_is_described_and_then_refused(llm: Llm, fox: Path) -> None:
    result = llm("train", "fox.txt", "--dry-run", "--hidden-dim", "65536", "--steps", "1", "--threads", "2")
    assert result.returncode == 2
    assert "\nmemory " in result.stdout
    assert result.stderr.startswith("llm: training needs about ")
    assert result.stderr.count("\n") == 1
    assert names_in(fox) == ["fox.txt"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["nowhere.txt"], 66, "nowhere.txt"),
        (["fox.txt", "--window", "1024", "--vocab", "nowhere.json"], 66, "nowhere.json"),
        (["short.txt"], 65, "needs at least"),
        (["fox.txt", "--output", "taken"], 73, "taken"),
        (["--resume"], 2, "--dry-run"),
        ([], 2, "no CORPUS"),
    ],
)
def test_invalid_input_is_one_line_as_for_a_run(
    llm: Llm, fox: Path, arguments: list[str], status: int, message: str
) -> None:
    (fox / "short.txt").write_text("short")
    (fox / "taken").mkdir()
    (fox / "taken" / "mine").touch()
    before = names_in(fox)
    result = llm("train", *arguments, "--dry-run")
    assert (result.returncode, result.stdout) == (status, "")
    assert result.stderr.startswith("llm: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert names_in(fox) == before
