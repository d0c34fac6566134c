"""`llm train` from corpus to run, and what the other commands make of the run.

Starting TensorFlow takes seconds: one run serves all tests that only look at it.
"""

import importlib.util
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Llm = Callable[..., subprocess.CompletedProcess[str]]

TEXT = "the quick brown fox jumps over the lazy dog\n" * 60
SMALL = ("--hidden-dim", "8", "--embedding-dim", "4", "--window", "8", "--batch-size", "4", "--threads", "1")

needs_tensorflow = pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="TensorFlow not installed")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus in it."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "fox.txt").write_text(TEXT)
    return folder


@pytest.fixture(scope="module")
def trained(program: list[str], environment: dict[str, str], home: Path) -> subprocess.CompletedProcess[str]:
    """`llm train` in `home`, to its end."""
    arguments = ["train", "fox.txt", "--steps", "12", *SMALL, "--random-seed", "1", "--json"]
    return subprocess.run(
        [*program, *arguments], cwd=home, env=environment, capture_output=True, encoding="utf-8", timeout=100
    )


@needs_tensorflow
def test_json_is_one_line_with_the_results(trained: subprocess.CompletedProcess[str], home: Path) -> None:
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
        "parameters",
        "workers",
    ]
    assert (result["run"], result["steps"], result["tokens"], result["workers"]) == ("runs/fox", 12, 12 * 8 * 4, 1)
    assert (home / result["checkpoint"] / "manifest.json").is_file()
    assert result["best_validation_loss"] <= result["validation_loss"]
    assert result["seconds"] > 0


@needs_tensorflow
def test_the_tokens_of_a_finished_run_are_kept_only_if_asked_for(
    trained: subprocess.CompletedProcess[str], program: list[str], environment: dict[str, str], home: Path
) -> None:
    arguments = ["train", "fox.txt", "--steps", "2", *SMALL, "--keep-tokens", "--quiet", "--output", "kept"]
    subprocess.run([*program, *arguments], cwd=home, env=environment, check=True, timeout=100)
    assert (home / "kept" / "tokens.bin").stat().st_size == len(TEXT)
    assert trained.returncode == 0
    assert not (home / "runs" / "fox" / "tokens.bin").exists()


@needs_tensorflow
def test_off_a_terminal_it_says_the_settings_and_a_line_a_validation(
    trained: subprocess.CompletedProcess[str],
) -> None:
    result = json.loads(trained.stdout)
    lines = trained.stderr.splitlines()
    assert "\x1b" not in trained.stderr
    assert lines[0] == "run       runs/fox"
    assert any("1 layer of 8, embedding 4" in line for line in lines)
    assert any("random seed 1" in line for line in lines)
    assert lines[-1].startswith("epoch ")
    assert f"validation {result['validation_loss']:.4f}" in lines[-1]


@needs_tensorflow
@pytest.mark.usefixtures("trained")
def test_the_newest_run_is_the_model_to_generate_from(llm: Llm, home: Path) -> None:
    result = llm("generate", "--seed", "the", "--length", "10", "--random-seed", "1", cwd=home)
    assert result.returncode == 0
    assert len(result.stdout) == len("the") + 10 + len("\n")
    assert "runs/fox/checkpoints/step-" in result.stderr
    assert llm("generate", "--model", "runs/fox", "--length", "1", cwd=home).returncode == 0


@needs_tensorflow
def test_evaluating_the_held_out_text_agrees_with_training(
    trained: subprocess.CompletedProcess[str], llm: Llm, home: Path
) -> None:
    result = json.loads(trained.stdout)
    held_out = TEXT[len(TEXT) - round(len(TEXT) * 0.1) :]
    evaluated = llm("evaluate", "-", "--model", result["checkpoint"], "--json", input=held_out, cwd=home)
    assert json.loads(evaluated.stdout)["nats_per_token"] == pytest.approx(result["best_validation_loss"], abs=0.005)


@needs_tensorflow
def test_info_shows_the_run_and_the_table_of_runs(
    trained: subprocess.CompletedProcess[str], llm: Llm, home: Path
) -> None:
    best = f"{json.loads(trained.stdout)['best_validation_loss']:.4f}"
    run, table = llm("info", "runs/fox", cwd=home).stdout, llm("info", cwd=home).stdout
    assert "model.hidden_dim" in run
    assert f"validation loss {best} (best)" in run
    heading, row = table.splitlines()
    assert heading.split("  ")[0] == "run"
    assert row.startswith("runs/fox  12     ")
    assert best in row


@needs_tensorflow
@pytest.mark.usefixtures("trained")
def test_a_taken_output_is_refused_and_left_alone(llm: Llm, home: Path) -> None:
    before = sorted((home / "runs/fox").rglob("*"))
    result = llm("train", "fox.txt", "--output", "runs/fox", "--steps", "1", *SMALL, cwd=home)
    assert (result.returncode, result.stdout) == (73, "")
    assert result.stderr.count("\n") == 1
    assert sorted((home / "runs/fox").rglob("*")) == before


@needs_tensorflow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_an_interrupted_run_ends_with_130_and_says_how_to_go_on(
    program: list[str], environment: dict[str, str], home: Path
) -> None:
    arguments = ["train", "fox.txt", "--output", "stopped", "--steps", "1000000", *SMALL]
    with subprocess.Popen(
        [*program, *arguments], cwd=home, env=environment, stderr=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("epoch "):  # it is training
                process.send_signal(signal.SIGINT)
                break
        _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.fullmatch(
        r"stopped and saved at step [\d,]+; go on with: llm train --resume stopped", rest.splitlines()[-1]
    )
    assert "Traceback" not in rest
    assert list((home / "stopped" / "checkpoints").glob("step-*/manifest.json"))
    names = sorted(path.name for path in (home / "stopped").iterdir())
    assert names == ["checkpoints", "history.jsonl", "run.json", "tokenizer.json", "tokens.bin"]  # to go on at once


@pytest.mark.parametrize(
    ("text", "arguments", "status", "said"),
    [
        (None, [], 66, "corpus.txt"),
        (b"", [], 66, "corpus.txt"),
        (b"short", ["--window", "16"], 65, "needs at least"),
        (b"caf\xe9", [], 65, "byte 3"),
        ("text".encode("utf-16"), [], 65, "UTF-16"),
        (b"\x00\x01\x02\x03binary", [], 65, "binary"),
        (b"text" * 1000, ["--vocab", "corpus.txt"], 65, "corpus.txt"),
        (b"text" * 1000, ["--vocab", "nowhere.json"], 66, "nowhere.json"),
        (b"text" * 1000, ["--vocab", "abc.json"], 65, "lacks characters"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    llm: Llm, tmp_path: Path, text: bytes | None, arguments: list[str], status: int, said: str
) -> None:
    if text is not None:
        (tmp_path / "corpus.txt").write_bytes(text)
    vocabulary = {"format_version": 1, "type": "char", "min_count": 1, "characters": ["a", "b", "c"]}
    (tmp_path / "abc.json").write_text(json.dumps(vocabulary))
    result = llm("train", "corpus.txt", *arguments)
    assert (result.returncode, result.stdout) == (status, "")
    assert result.stderr.startswith("llm: ")
    assert result.stderr.count("\n") == 1
    assert said in result.stderr
    assert not (tmp_path / "runs").exists()


def test_without_tensorflow_it_says_what_to_install(program: list[str], tmp_path: Path) -> None:
    (tmp_path / "fox.txt").write_text(TEXT)
    without = f"import sys; sys.modules['tensorflow'] = None; {program[-1]}"
    result = subprocess.run(
        [sys.executable, "-c", without, "train", "fox.txt"], cwd=tmp_path, capture_output=True, encoding="utf-8"
    )
    assert result.returncode == 69
    assert result.stderr.count("\n") == 1
    assert "pip install tensorflow" in result.stderr
    assert not (tmp_path / "runs").exists()
