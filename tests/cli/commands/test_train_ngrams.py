"""`llm train` of n-gram models, which needs no TensorFlow, and of mixtures of unusual texts."""

import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import quickfox.cli.commands.train as command

Llm = Callable[..., subprocess.CompletedProcess[str]]

TEXT = "the quick brown fox jumps over the lazy dog\n" * 60
NGRAM = ("--architecture", "ngram")
SMALL = ("--hidden-dim", "8", "--embedding-dim", "4", "--window", "4", "--batch-size", "4", "--threads", "2")

needs_tensorflow = pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="TensorFlow not installed")


@pytest.fixture
def fox(tmp_path: Path) -> Path:
    """A folder with a corpus in it."""
    (tmp_path / "fox.txt").write_text(TEXT)
    return tmp_path


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def train(llm: Llm, *arguments: object, **settings: Any) -> dict[str, Any]:
    """The JSON object of a training run."""
    result = llm("train", *arguments, "--json", "--quiet", **settings)
    assert (result.returncode, result.stderr) == (0, "")
    values: dict[str, Any] = json.loads(result.stdout)
    return values


# A run


def test_an_ngram_model_is_trained_and_used(llm: Llm, fox: Path) -> None:
    result = train(llm, "fox.txt", *NGRAM)
    assert (result["run"], result["steps"], result["epochs"], result["parameters"]) == ("runs/fox", 1, 1.0, 0)
    assert result["tokens"] == round(0.9 * len(TEXT))
    assert (result["train_loss"], result["network_loss"]) == (None, None)
    assert result["validation_loss"] == result["best_validation_loss"] < 0.2
    assert not (fox / "runs" / "fox" / "tokens.bin").exists()
    generated = llm("generate", "--seed", "the quick", "--length", "10", "--temperature", "0")
    assert generated.stdout == "the quick brown fox\n"
    evaluated = llm("evaluate", "-", "--json", input=TEXT[round(0.9 * len(TEXT)) :])
    assert json.loads(evaluated.stdout)["nats_per_token"] == pytest.approx(result["validation_loss"], abs=1e-4)


def test_the_same_text_gives_the_same_model(llm: Llm, fox: Path) -> None:
    weights = []
    for name, threads in (("one", 1), ("two", 2)):
        result = train(llm, "fox.txt", *NGRAM, "--output", name, "--threads", threads)
        weights.append((fox / result["checkpoint"] / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_its_settings_and_its_loss_are_plain_lines(llm: Llm, fox: Path) -> None:
    result = llm("train", "fox.txt", *NGRAM, "--ngram", "4")
    assert (result.returncode, result.stdout) == (0, "")
    lines = result.stderr.splitlines()
    assert lines[:3] == [
        "run       runs/fox",
        "text      2,376 training tokens, 264 validation tokens",
        "model     4-gram model, vocabulary 29",
    ]
    assert [line[:29] for line in lines[3:5]] == ["the held-out text has only 26", "at least 100% of the held-out"]
    assert lines[5].startswith("n-grams   4-gram model alone: validation 0.")
    assert lines[-2].startswith("saved in runs/fox; best validation loss 0.")
    assert lines[-1] == "next: llm generate --model runs/fox"


def test_info_of_its_run_has_no_rows_of_a_network(llm: Llm, fox: Path) -> None:
    train(llm, "fox.txt", *NGRAM, "--ngram", 4)
    settings_table, *_ = llm("info", "runs/fox").stdout.split("\n\n")
    rows = dict(line.split(maxsplit=1) for line in settings_table.splitlines())
    settings = {name: value for name, value in rows.items() if name.startswith(("model.", "training."))}
    assert settings.keys() == {
        "model.architecture",
        "model.vocabulary_size",
        "training.threads",
        "training.ngram_order",
    }
    assert rows["n-grams"].startswith("4-gram model, ")
    assert "validation loss 0." in rows["checkpoint"]
    assert "network" not in rows["checkpoint"]
    table = llm("info").stdout.splitlines()
    assert table[1].split()[:5] == ["runs/fox", "ngram", "char", "-", "1"]


def test_info_of_a_run_with_a_damaged_checkpoint_has_no_ngrams(llm: Llm, fox: Path) -> None:
    checkpoint = fox / train(llm, "fox.txt", *NGRAM)["checkpoint"]
    (checkpoint / "config.json").write_text("{}")
    result = llm("info", "runs/fox")
    assert (result.returncode, result.stderr) == (0, "")
    assert "n-grams" not in result.stdout


def test_without_validation_there_is_no_loss(llm: Llm, fox: Path) -> None:
    result = train(llm, "fox.txt", *NGRAM, "--validation-split", 0)
    assert (result["validation_loss"], result["best_validation_loss"]) == (None, None)
    assert result["tokens"] == len(TEXT)
    assert llm("generate", "--seed", "the", "--length", "5").returncode == 0


@pytest.mark.parametrize("tokenizer", ["byte", "word", "bpe"])
def test_every_tokenizer(llm: Llm, fox: Path, tokenizer: str) -> None:
    train(llm, "fox.txt", *NGRAM, "--tokenizer", tokenizer)
    result = llm("generate", "--seed", "the quick brown", "--length", "8", "--temperature", "0")
    assert result.stdout.startswith("the quick brown fox")


def test_prompts_with_completions(llm: Llm, tmp_path: Path) -> None:
    lines = "".join(f'{{"prompt": "{n} ", "completion": "is {n}"}}\n' for n in range(10)) * 4
    (tmp_path / "pairs.jsonl").write_text(lines)
    train(llm, "pairs.jsonl", *NGRAM, "--ngram", 8)
    answer = llm("generate", "--seed", "7 ", "--length", "20", "--temperature", "0", "--no-echo")
    assert answer.stdout == "is 7\n"


def test_tensorflow_is_not_needed(program: list[str], fox: Path) -> None:
    without = f"import sys; sys.modules['tensorflow'] = None; {program[-1]}"
    for arguments in (["train", "fox.txt"], ["train", "fox.txt", "--dry-run"], ["train", "--resume", "runs/fox"]):
        options = NGRAM if "--resume" not in arguments else ()
        result = subprocess.run(
            [sys.executable, "-P", "-c", without, *arguments, *options], cwd=fox, capture_output=True, encoding="utf-8"
        )
        assert result.returncode == 0, result.stderr


# Resuming and repeating it


def test_a_finished_run_is_resumed_without_change(llm: Llm, fox: Path) -> None:
    first = train(llm, "fox.txt", *NGRAM, "--ngram", 4)
    before = {path: path.read_bytes() for path in (fox / "runs").rglob("*") if path.is_file()}
    for options in ((), ("--ngram", "4"), NGRAM):
        result = llm("train", "--resume", "runs/fox", *options, "--json")
        assert result.returncode == 0
        assert json.loads(result.stdout)["validation_loss"] == first["validation_loss"]
    assert {path: path.read_bytes() for path in (fox / "runs").rglob("*") if path.is_file()} == before


def test_its_settings_are_repeated_by_config(llm: Llm, fox: Path) -> None:
    first = train(llm, "fox.txt", *NGRAM, "--ngram", 4, "--tokenizer", "byte")
    again = train(llm, "fox.txt", "--config", "runs/fox", "--output", "again")
    assert again["validation_loss"] == first["validation_loss"]


# A late signal


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_signal_during_the_last_step_does_not_lose_the_result(
    llm: Llm, fox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    format_result = command.result_values
    monkeypatch.setattr(
        command, "result_values", lambda finished: [os.kill(os.getpid(), signal.SIGINT), format_result(finished)][1]
    )
    result = llm("train", "fox.txt", *NGRAM, "--json", "--quiet")
    assert (result.returncode, result.stderr) == (130, "")
    assert json.loads(result.stdout)["steps"] == 1


# Dry run


def test_a_dry_run_prints_settings_and_cost_and_leaves_no_files(llm: Llm, fox: Path) -> None:
    result = llm("train", "fox.txt", *NGRAM, "--dry-run", "--ngram", "4")
    assert (result.returncode, result.stderr) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert list(lines) == ["run", "text", "model", "memory", "time"]
    assert lines["model"] == "4-gram model, vocabulary 29"
    assert "operations" not in lines["time"]
    assert names_in(fox) == ["fox.txt"]


def test_the_json_of_a_dry_run_has_the_settings_of_the_real_run(llm: Llm, fox: Path) -> None:
    planned = json.loads(llm("train", "fox.txt", *NGRAM, "--dry-run", "--json", "--random-seed", "1").stdout)
    assert names_in(fox) == ["fox.txt"]
    real = train(llm, "fox.txt", *NGRAM, "--random-seed", "1")
    record = json.loads((fox / "runs" / "fox" / "run.json").read_text())
    assert (planned["model"], planned["training"]) == (record["model"], record["training"])
    assert {name: planned[name] for name in ("run", "parameters", "epochs", "workers")} == {
        name: real[name] for name in ("run", "parameters", "epochs", "workers")
    }
    with (fox / real["checkpoint"] / "model.safetensors").open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
        tables = os.fstat(file.fileno()).st_size - 8 - header
    assert tables <= planned["disk_bytes"]
    assert planned["tokens_per_second"] > 0
    assert planned["seconds"] > 0


# Unusual texts


@pytest.mark.parametrize("text", ["a" * 200, "ab" * 100, "aab", "\n\n\n\n"])
def test_an_ngram_model_of_few_characters(llm: Llm, tmp_path: Path, text: str) -> None:
    (tmp_path / "few.txt").write_text(text)
    result = train(llm, "few.txt", *NGRAM, "--validation-split", "0")
    seed = text[:2]
    generated = llm("generate", "--seed", seed, "--length", "6", "--temperature", "0", "--json")
    assert set(json.loads(generated.stdout)["text"]) <= set(text)
    evaluated = json.loads(llm("evaluate", "few.txt", "--json").stdout)
    assert 0 <= evaluated["nats_per_token"] < 1
    assert result["tokens"] == len(text)


@pytest.mark.slow
@needs_tensorflow
def test_a_mixture_of_one_repeated_character(llm: Llm, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a" * 300)
    result = train(llm, "a.txt", "--steps", 3, *SMALL)
    unknown = -math.log(1 - 1 / 272)  # the share of unknown characters, after 270 known ones
    assert (result["validation_loss"], result["network_loss"]) == (pytest.approx(unknown), pytest.approx(unknown))
    assert llm("generate", "--seed", "a", "--length", "5", "--random-seed", "1").stdout == "aaaaaa\n"
    assert json.loads(llm("evaluate", "a.txt", "--json").stdout)["nats_per_token"] == pytest.approx(unknown)
    assert llm("score", "a.txt").returncode == 0


@pytest.mark.slow
@needs_tensorflow
def test_ngrams_are_off_or_of_the_requested_order(llm: Llm, fox: Path) -> None:
    arguments = ("fox.txt", "--steps", 6, *SMALL, "--random-seed", 1)
    off, mixed = train(llm, *arguments, "--ngram", "off"), train(llm, *arguments, "--ngram", 2)
    assert off["network_loss"] is None
    assert mixed["validation_loss"] < min(mixed["network_loss"], off["validation_loss"])
    assert "n-grams" not in llm("info", off["run"]).stdout
    assert "2-gram model, " in llm("info", mixed["checkpoint"]).stdout
    new = train(llm, "fox.txt", "--steps", 2, "--init-from", mixed["run"], *SMALL[4:], "--output", "new")
    assert "n-grams" in llm("info", new["checkpoint"]).stdout
