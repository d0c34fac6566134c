"""Tokenizers and transfer learning from the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

Llm = Callable[..., CompletedProcess[str]]

TEXT = "the quick brown fox jumps over the lazy dog\n" * 120
BATCHES = ("--batch-size", "4", "--window", "4", "--threads", "2", "--quiet")
SMALL = ("--hidden-dim", "16", "--embedding-dim", "4", *BATCHES)


@pytest.mark.parametrize(("kind", "size"), [("byte", "256"), ("word", "264"), ("bpe", "270")])
def test_build_vocab_and_info_for_each_tokenizer(llm: Llm, tmp_path: Path, kind: str, size: str) -> None:
    (tmp_path / "fox.txt").write_text(TEXT)
    sized = () if kind == "byte" else ("--vocabulary-size", size)
    built = llm("build-vocab", "fox.txt", "--tokenizer", kind, *sized)
    assert built.returncode == 0, built.stderr
    assert "characters per token" in built.stderr
    description = dict(line.split(maxsplit=1) for line in llm("info", "vocab.json").stdout.splitlines())
    assert (description["tokenizer"], description["size"]) == (kind, size)


@pytest.mark.slow
def test_a_model_with_a_bpe_tokenizer(llm: Llm, tmp_path: Path) -> None:
    (tmp_path / "fox.txt").write_text(TEXT)
    trained = llm("train", "fox.txt", "--tokenizer", "bpe", "--vocabulary-size", "280", "--steps", "20", *SMALL)
    assert trained.returncode == 0, trained.stderr
    assert json.loads((tmp_path / "runs/fox/run.json").read_text())["tokenizer"] == "bpe"
    generated = llm("generate", "--seed", "the quick 狐", "--length", "5", "--random-seed", "1")
    assert generated.returncode == 0, generated.stderr
    assert generated.stdout.startswith("the quick 狐")
    evaluated = json.loads(llm("evaluate", "fox.txt", "--json").stdout)
    assert evaluated["bytes"] > evaluated["tokens"]
    scored = json.loads(llm("score", "fox.txt", "--json").stdout.splitlines()[0])
    assert scored["characters"] == len(TEXT.splitlines()[0])


@pytest.mark.slow
def test_init_from_another_run_is_reproducible_from_its_config(llm: Llm, tmp_path: Path) -> None:
    (tmp_path / "fox.txt").write_text(TEXT)
    (tmp_path / "new.txt").write_text(TEXT.upper())
    assert llm("train", "fox.txt", "--steps", "20", *SMALL).returncode == 0
    shorter = ("--steps", "5", "--random-seed", "3", *BATCHES)
    trained = llm("train", "new.txt", "--init-from", "runs/fox", "--freeze-embeddings", *shorter)
    assert trained.returncode == 0, trained.stderr
    again = llm("train", "new.txt", "--config", "runs/new", "--threads", "2", "--quiet", "--output", "again")
    assert again.returncode == 0, again.stderr
    first, second = (json.loads((tmp_path / run / "run.json").read_text()) for run in ("runs/new", "again"))
    assert first == second
    weights = [next((tmp_path / run).glob("checkpoints/*/model.safetensors")) for run in ("runs/new", "again")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["build-vocab", "fox.txt", "--tokenizer", "byte", "--vocabulary-size", "300"], 2, "not for byte"),
        (["build-vocab", "fox.txt", "--tokenizer", "bpe", "--vocabulary-size", "10"], 2, "from 256"),
        (["build-vocab", "fox.txt", "--tokenizer", "runes"], 2, "runes"),
        (["train", "fox.txt", "--vocabulary-size", "300"], 2, "not for char"),
        (["train", "fox.txt", "--tokenizer", "bpe", "--vocab", "v.json"], 2, "--tokenizer and --vocab exclude"),
        (["train", "fox.txt", "--init-from", "nowhere"], 66, "nowhere"),
        (["train", "fox.txt", "--freeze-embeddings"], 2, "--freeze-embeddings needs --init-from"),
        (["train", "--resume", "--init-from", "runs/fox"], 2, "--init-from cannot be given with --resume"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    llm: Llm, tmp_path: Path, arguments: list[str], status: int, message: str
) -> None:
    (tmp_path / "fox.txt").write_text(TEXT)
    result = llm(*arguments)
    assert result.returncode == status
    assert message in result.stderr
    assert not (tmp_path / "runs").exists()
