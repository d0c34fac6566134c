"""`llm train` from corpus to run, and the other commands on that run: one run for all tests that only read it."""

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Llm = Callable[..., subprocess.CompletedProcess[str]]

TEXT = "the quick brown fox jumps over the lazy dog\n" * 60
SMALL = ("--hidden-dim", "8", "--embedding-dim", "4", "--window", "4", "--batch-size", "4", "--threads", "2")

needs_tensorflow = pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="TensorFlow not installed")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus in it."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "fox.txt").write_text(TEXT)
    return folder


@pytest.fixture(scope="module")
def trained(run_llm: Llm, home: Path) -> subprocess.CompletedProcess[str]:
    """`llm train --json` in `home`."""
    return run_llm("train", "fox.txt", "--steps", 12, *SMALL, "--random-seed", 1, "--json", cwd=home)


@needs_tensorflow
def test_json_is_one_line_of_results(trained: subprocess.CompletedProcess[str], home: Path) -> None:
    assert trained.returncode == 0, trained.stderr
    result = json.loads(trained.stdout)
    assert list(result) == [
        "run",
        "checkpoint",
        "epochs",
        "steps",
        "tokens",
        "seconds",
        "tokens_per_second",
        "train_loss",
        "validation_loss",
        "best_validation_loss",
        "validation_targets",
        "network_loss",
        "parameters",
        "workers",
    ]
    assert (result["run"], result["steps"], result["tokens"], result["workers"]) == ("runs/fox", 12, 12 * 4 * 4, 1)
    assert (home / result["checkpoint"] / "manifest.json").is_file()
    assert result["best_validation_loss"] <= result["validation_loss"] < result["network_loss"]
    assert result["seconds"] > 0


@needs_tensorflow
def test_encoded_tokens_are_kept_with_keep_tokens_only(
    trained: subprocess.CompletedProcess[str], llm: Llm, home: Path
) -> None:
    arguments = ("--steps", "2", *SMALL, "--keep-tokens", "--quiet", "--output", "kept")
    assert llm("train", "fox.txt", *arguments, cwd=home).returncode == 0
    assert (home / "kept" / "tokens.bin").stat().st_size == len(TEXT)
    assert trained.returncode == 0
    assert not (home / "runs" / "fox" / "tokens.bin").exists()


@needs_tensorflow
def test_without_a_terminal_settings_and_validations_are_plain_lines(
    trained: subprocess.CompletedProcess[str],
) -> None:
    result = json.loads(trained.stdout)
    lines = trained.stderr.splitlines()
    assert "\x1b" not in trained.stderr
    assert lines[0] == "run       runs/fox"
    assert any("1 layer of 8, embedding 4" in line for line in lines)
    assert any("random seed 1" in line for line in lines)
    assert any(
        re.fullmatch(r"n-grams   \d+-gram model alone: validation \d\.\d{4}; \d+ n-grams", line) for line in lines
    )
    assert lines[-1].startswith("epoch ")
    losses = f"validation {result['validation_loss']:.4f} (network alone {result['network_loss']:.4f})"
    assert losses in lines[-1]


@needs_tensorflow
@pytest.mark.usefixtures("trained")
def test_generate_uses_the_newest_run_by_default(llm: Llm, home: Path) -> None:
    result = llm("generate", "--seed", "the", "--length", "10", "--random-seed", "1", cwd=home)
    assert result.returncode == 0
    assert len(result.stdout) == len("the") + 10 + len("\n")
    assert "runs/fox/checkpoints/step-" in result.stderr
    assert llm("generate", "--model", "runs/fox", "--length", "1", cwd=home).returncode == 0


@needs_tensorflow
def test_evaluate_on_the_validation_text_equals_the_validation_loss(
    trained: subprocess.CompletedProcess[str], llm: Llm, home: Path
) -> None:
    result = json.loads(trained.stdout)
    validation_text = TEXT[len(TEXT) - round(len(TEXT) * 0.1) :]
    evaluated = llm("evaluate", "-", "--model", result["checkpoint"], "--json", input=validation_text, cwd=home)
    assert json.loads(evaluated.stdout)["nats_per_token"] == pytest.approx(result["best_validation_loss"], abs=0.005)


@needs_tensorflow
def test_info_shows_the_run_and_the_table_of_runs(
    trained: subprocess.CompletedProcess[str], llm: Llm, home: Path
) -> None:
    result = json.loads(trained.stdout)
    best, network = (f"{result[name]:.4f}" for name in ("best_validation_loss", "network_loss"))
    run, table = llm("info", "runs/fox", cwd=home).stdout, llm("info", cwd=home).stdout
    assert "model.hidden_dim" in run
    assert f"validation loss {best}, network alone {network} (best)" in run
    assert re.search(r"^n-grams  +\d+-gram model, \d+ n-grams$", run, re.MULTILINE)
    assert "ngrams " not in run
    heading, row = table.splitlines()
    assert heading.split("  ")[0] == "run"
    assert re.match(r"runs/fox  lstm +char +[\d,]+ +12 ", row)
    assert best in row


@needs_tensorflow
@pytest.mark.usefixtures("trained")
def test_an_output_that_exists_is_refused_and_unchanged(llm: Llm, home: Path) -> None:
    before = sorted((home / "runs/fox").rglob("*"))
    result = llm("train", "fox.txt", "--output", "runs/fox", "--steps", "1", *SMALL, cwd=home)
    assert (result.returncode, result.stdout) == (73, "")
    assert result.stderr.count("\n") == 1
    assert sorted((home / "runs/fox").rglob("*")) == before


@pytest.mark.parametrize(
    ("text", "arguments", "status", "message"),
    [
        (None, [], 66, "corpus.txt"),
        (b"", [], 66, "corpus.txt"),
        (b"short", ["--window", "16"], 65, "but --window 16 needs at least 19: add text"),
        (b"caf\xe9", [], 65, "byte 3"),
        ("text".encode("utf-16"), [], 65, "UTF-16"),
        (b"\x00\x01\x02\x03binary", [], 65, "binary"),
        (b"text" * 1000, ["--vocab", "corpus.txt"], 65, "corpus.txt"),
        (b"text" * 1000, ["--vocab", "nowhere.json"], 66, "nowhere.json"),
        (b"text" * 1000, ["--vocab", "abc.json"], 65, "; omit --vocab, or run `llm build-vocab`\n"),
    ],
)
def test_invalid_input_is_one_line_and_leaves_no_files(
    llm: Llm, tmp_path: Path, text: bytes | None, arguments: list[str], status: int, message: str
) -> None:
    if text is not None:
        (tmp_path / "corpus.txt").write_bytes(text)
    vocabulary = {"format_version": 1, "type": "char", "min_count": 1, "characters": ["a", "b", "c"]}
    (tmp_path / "abc.json").write_text(json.dumps(vocabulary))
    result = llm("train", "corpus.txt", *arguments)
    assert (result.returncode, result.stdout) == (status, "")
    assert result.stderr.startswith("llm: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert not (tmp_path / "runs").exists()


def test_without_tensorflow_the_error_names_the_installation_command(program: list[str], tmp_path: Path) -> None:
    (tmp_path / "fox.txt").write_text(TEXT)
    without = f"import sys; sys.modules['tensorflow'] = None; {program[-1]}"
    result = subprocess.run(
        [sys.executable, "-c", without, "train", "fox.txt"], cwd=tmp_path, capture_output=True, encoding="utf-8"
    )
    assert result.returncode == 69
    assert result.stderr.count("\n") == 1
    assert "pip install tensorflow" in result.stderr
    assert not (tmp_path / "runs").exists()
