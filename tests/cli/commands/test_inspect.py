"""`llm inspect`: units, gates and attention, on the terminal, as a page and as JSON."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest

import quickfox
from quickfox.checkpoints.checkpoint import ModelBundle, save_checkpoint
from quickfox.config.model import ModelConfig
from quickfox.models.registry import build_network
from quickfox.tokenizers.build import build_tokenizer
from toy_models import random_parameters
from written_runs import TEXT, write_run

Llm = Callable[..., CompletedProcess[Any]]
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path, "run")


@pytest.fixture
def transformer(tmp_path: Path) -> Path:
    tokenizer = build_tokenizer("char", [TEXT], None)
    config = ModelConfig(
        architecture="transformer", vocabulary_size=tokenizer.vocabulary_size, embedding_dim=8, hidden_dim=8,
        num_layers=2, num_heads=2, context=8,
    )  # fmt: skip
    bundle = ModelBundle(config, tokenizer, random_parameters(config), step=1, validation_loss=None, sampling={})
    save_checkpoint(tmp_path / "transformer", bundle, None)
    return tmp_path / "transformer"


def test_a_unit_colors_the_text(llm: Llm, run: Path, tmp_path: Path) -> None:
    text = "The dog said: a fox\n"
    (tmp_path / "text.txt").write_text(text)
    result = llm("inspect", "text.txt", "--model", run, "--unit", "0.2")
    assert (result.returncode, ESCAPES.sub("", result.stdout)) == (0, text)
    assert "unit 0.2" in result.stderr
    found = json.loads(llm("inspect", "text.txt", "--model", run, "--unit", "0.2", "--json").stdout)
    assert "".join(found["tokens"]) == text
    bundle = quickfox.load(run).bundle
    model = build_network(bundle.config, bundle.parameters)
    traces, _ = model.trace(bundle.tokenizer.encode(text, None)[np.newaxis], model.initial_state(1))
    np.testing.assert_allclose(found["activations"], traces[0].units[0, :, 2], atol=1e-6)
    strongest = int(np.abs(found["activations"]).argmax())
    color = 75 if found["activations"][strongest] < 0 else 203
    assert re.search(rf"48;5;{color}m[^\x1b]*{re.escape(text[strongest])}", result.stdout)


def test_a_page_escapes_the_text(llm: Llm, run: Path, tmp_path: Path) -> None:
    text = "<script>alert('fox')</script>"
    result = llm("inspect", "-", "--model", run, "--unit", "0.0", "-o", "page.html", input=text)
    assert (result.returncode, result.stderr, result.stdout) == (0, "wrote page.html\n", "")
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page
    assert re.search(r'class="[np]4"', page)


def test_find_reads_the_held_out_part_of_the_text_of_the_run(llm: Llm, run: Path, tmp_path: Path) -> None:
    result = llm("inspect", "corpus <em>.txt", "--model", run, "--find", "word-start", "--top", "2")
    assert result.returncode == 0
    assert f"held-out text is read, {len(TEXT) // 5:,} tokens" in result.stderr
    header, *rows = result.stdout.splitlines()
    assert header.split() == ["unit", "correlation", "95", "%", "interval"]
    assert len(rows) == 2
    assert all(re.fullmatch(r"0\.\d +[+-]0\.\d{3} +[+-]0\.\d{3} to [+-]0\.\d{3}", row) for row in rows)
    (tmp_path / "same.txt").write_text(TEXT)
    same = llm("inspect", "same.txt", "--model", run, "--find", "word-start", "--top", "2")
    assert same.stdout == result.stdout  # recognized by its content
    other = llm("inspect", "-", "--model", run, "--find", "word-start", "--json", input=TEXT[:500])
    assert (json.loads(other.stdout)["tokens"], other.stderr) == (500, "")


def test_a_run_without_held_out_text_warns(llm: Llm, tmp_path: Path) -> None:
    run = write_run(tmp_path, "run", split=0.0)
    result = llm("inspect", "corpus <em>.txt", "--model", run, "--find", "[aeiou]", "--json")
    assert json.loads(result.stdout)["tokens"] == len(TEXT)
    assert "was trained on all of" in result.stderr


def test_gates(llm: Llm, run: Path) -> None:
    result = llm("inspect", "-", "--model", run, "--gates", input=TEXT[:300])
    assert [row.split()[:2] for row in result.stdout.splitlines()[1:]] == [
        ["recurrent.0", gate] for gate in ("input", "forget", "output")
    ]
    found = json.loads(llm("inspect", "-", "--model", run, "--gates", "--json", input=TEXT[:300]).stdout)
    assert all(np.shape(each[name]) == (6,) for each in found["gates"] for name in ("mean", "is_open", "is_closed"))


def test_attention(llm: Llm, transformer: Path) -> None:
    result = llm("inspect", "-", "--model", transformer, "--attention", "--top", "2", input="a fox jumps")
    assert result.stderr == "the last 8 of 11 tokens are read, the context of the model\n"
    rows = result.stdout.splitlines()
    assert rows[0].split() == ["position", "token", "layers.0", "layers.1"]
    assert re.fullmatch(r"0 +o +o \+0 1\.00 +o \+0 1\.00", rows[1])
    assert re.match(r"7 +s +(\S -\d \d\.\d\d|s \+0 \d\.\d\d)  ", rows[8])
    found = json.loads(llm("inspect", "-", "--model", transformer, "--attention", "--json", input="a fox").stdout)
    assert found["tokens"] == [*"a fox"]
    weights = np.array([layer["weights"] for layer in found["layers"]])
    assert weights.shape == (2, 2, 5, 5)
    np.testing.assert_allclose(weights.sum(axis=-1), 1.0, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--unit", "0.6"], 2, "llm: --unit must be LAYER.UNIT from 0.0 to 0.5, not '0.6'"),
        (["--attention"], 2, "llm: --attention: this network has none; attention-rnn and transformer have"),
        ([], 2, "llm: give one of --unit, --find, --attention and --gates, not none of them"),
        (
            ["--gates", "--find", "quotes"],
            2,
            "llm: give one of --unit, --find, --attention and --gates, not ",
        ),
        (["--find", "(a"], 2, "llm: --find: '(a' is neither one of quotes, "),
        (["--find", "brackets"], 65, "llm: --find: 'brackets' has the value 0 in the whole text: "),
        (["--gates", "-o", "x.html"], 2, "llm: --output is for --unit, without --json"),
    ],
)
def test_errors_are_one_line(llm: Llm, run: Path, arguments: list[str], status: int, message: str) -> None:
    result = llm("inspect", "-", "--model", run, *arguments, input="The fox")
    assert (result.returncode, result.stdout) == (status, "")
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1


def test_an_empty_text_is_an_error(llm: Llm, run: Path) -> None:
    assert llm("inspect", "-", "--model", run, "--unit", "0.0").returncode == 66
