"""Pairs of prompt and completion from JSON lines: a model learns to answer and to end its answers."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

Llm = Callable[..., CompletedProcess[str]]

FRENCH = {"cat": "chat", "dog": "chien", "fox": "renard"}
PAIRS = [{"prompt": f"{word} = ", "completion": translation} for word, translation in FRENCH.items()] * 200
SMALL = ("--hidden-dim", "48", "--batch-size", "8", "--window", "24", "--threads", "2", "--random-seed", "1", "--quiet")


@pytest.mark.slow
def test_a_model_learns_completions_and_their_ends(llm: Llm, tmp_path: Path) -> None:
    (tmp_path / "words.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
    trained = llm("train", "words.jsonl", "--steps", "300", *SMALL)
    assert trained.returncode == 0, trained.stderr
    assert sorted(path.name for path in (tmp_path / "runs/words").iterdir()) == [
        "checkpoints",
        "history.jsonl",
        "run.json",
        "tokenizer.json",
    ]
    answers = [
        json.loads(llm("generate", "--seed", f"{word} = ", "--temperature", "0", "--no-echo", "--json").stdout)
        for word in FRENCH
    ]
    assert [answer["text"] for answer in answers] == list(FRENCH.values())
    assert {answer["finish_reason"] for answer in answers} == {"end_of_text"}
    measured = json.loads(llm("evaluate", "words.jsonl", "--json").stdout)
    assert measured["tokens"] == sum(len(pair["completion"]) + 1 for pair in PAIRS)
    validated = json.loads((tmp_path / "runs/words/history.jsonl").read_text().splitlines()[-1])["validation_loss"]
    assert abs(measured["nats_per_token"] - validated) < 0.05
    assert llm("train", "--resume", "runs/words", "--steps", "310", "--threads", "2", "--quiet").returncode == 0


def test_an_invalid_line_is_refused_with_its_number(llm: Llm, tmp_path: Path) -> None:
    (tmp_path / "words.jsonl").write_text('{"text": "a"}\n{"txt": "b"}\n')
    result = llm("train", "words.jsonl", *SMALL)
    assert (result.returncode, result.stderr.count("\n")) == (65, 1)
    assert "words.jsonl, line 2: 'text' is not among its keys 'txt'" in result.stderr
    assert not (tmp_path / "runs").exists()
