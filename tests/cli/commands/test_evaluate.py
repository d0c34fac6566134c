"""`llm evaluate`: results as a table and as JSON, equal to those of the Python API."""

import dataclasses
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quickfox
from quickfox.checkpoints.checkpoint import load_model, save_checkpoint
from quickfox.files.json import parse_json
from quickfox.models.parameters import parameter_shapes

Llm = Callable[..., subprocess.CompletedProcess[Any]]

TEXT = "the quick brown fox jumps over the lazy dog\nßä\n" * 3


def test_json_has_the_results_of_the_api(llm: Llm, model_directory: Path) -> None:
    result = llm("evaluate", "-", "--model", model_directory, "--json", input=TEXT)
    measured = json.loads(result.stdout)
    assert list(measured) == [
        "tokens",
        "characters",
        "bytes",
        "unknown_characters",
        "nats_per_token",
        "perplexity",
        "bits_per_character",
        "bits_per_byte",
        "standard_error",
        "gzip_bits_per_character",
        "xz_bits_per_character",
    ]
    assert measured == dataclasses.asdict(quickfox.load(model_directory).evaluate(TEXT))
    assert result.stderr == ""


def test_the_table_has_the_results_of_the_api(llm: Llm, model_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    table = llm("evaluate", "text.txt", "--model", model_directory).stdout
    evaluation = quickfox.load(model_directory).evaluate(TEXT)
    assert f"nats per token           {evaluation.nats_per_token:.4f}\n" in table
    assert f"standard error           {evaluation.standard_error:.4f}\n" in table
    assert f"gzip bits per character  {evaluation.gzip_bits_per_character:.4f}\n" in table


def test_a_few_characters_have_no_standard_error(llm: Llm, model_directory: Path) -> None:
    table = llm("evaluate", "-", "--model", model_directory, input="ab").stdout
    assert "standard error           not available\n" in table
    measured = json.loads(llm("evaluate", "-", "--model", model_directory, "--json", input="ab").stdout)
    assert measured["standard_error"] is None


def test_infinity_is_null_in_json(llm: Llm, model_directory: Path, tmp_path: Path) -> None:
    bundle = load_model(model_directory)
    bias = bundle.parameters["output.bias"].copy()
    bias[0] = 1e4
    parameters = {**bundle.parameters, "output.bias": bias}
    save_checkpoint(tmp_path / "sure", dataclasses.replace(bundle, parameters=parameters), None)
    result = llm("evaluate", "-", "--model", "sure", "--json", input=TEXT)
    measured = parse_json(result.stdout.encode(), "standard output")  # refuses Infinity
    assert measured["perplexity"] is None
    assert measured["nats_per_token"] > 1e3


def test_unknown_characters_are_omitted_counted_and_named_once(llm: Llm, model_directory: Path) -> None:
    result = llm("evaluate", "-", "--model", model_directory, "--json", input="abc€def€")
    assert json.loads(result.stdout)["unknown_characters"] == 2
    assert result.stderr.count("\n") == 1
    assert "'€' (U+20AC)" in result.stderr


def test_strict_refuses_unknown_characters(llm: Llm, model_directory: Path) -> None:
    result = llm("evaluate", "-", "--model", model_directory, "--strict", input="abc€def")
    assert (result.returncode, result.stdout) == (65, "")
    assert "U+20AC" in result.stderr


def test_an_empty_text_is_refused(llm: Llm, model_directory: Path) -> None:
    result = llm("evaluate", "-", "--model", model_directory, input="")
    assert (result.returncode, result.stdout) == (66, "")
    assert result.stderr.count("\n") == 1


def test_completions_are_generated_and_measured(llm: Llm, model_directory: Path, tmp_path: Path) -> None:
    bundle = load_model(model_directory)
    tokenizer = bundle.tokenizer.with_end_of_text()
    config = dataclasses.replace(bundle.config, vocabulary_size=tokenizer.vocabulary_size)
    parameters = {name: np.zeros(shape, np.float32) for name, shape in parameter_shapes(config).items()}
    parameters["output.bias"][tokenizer.end_of_text] = 9.0  # the most probable completion is empty
    save_checkpoint(
        tmp_path / "empty", dataclasses.replace(bundle, config=config, tokenizer=tokenizer, parameters=parameters), None
    )
    lines = [{"prompt": "a", "completion": ""}, {"prompt": "b", "completion": "no"}, {"text": "not completed"}]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    measured = json.loads(llm("evaluate", "pairs.jsonl", "--model", "empty", "--json").stdout)
    assert [measured[name] for name in ("exact_match", "cer", "wer", "chrf")] == [0.5, 1.0, 1.0, 0.0]
    assert measured["exact_match_interval"] == [0.0, 1.0]
    table = llm("evaluate", "pairs.jsonl", "--model", "empty").stdout
    assert "exact match              0.5000  95 % interval 0.0000 to 1.0000\n" in table


def test_two_models_are_compared_on_the_same_text(llm: Llm, model_directory: Path, mixture_directory: Path) -> None:
    names = (model_directory, mixture_directory)
    compared = json.loads(llm("evaluate", "-", "--compare", *names, "--json", input=TEXT).stdout)
    assert compared["runs"] == [str(name) for name in names]
    values = [quickfox.load(name).evaluate(TEXT).bits_per_byte for name in names]
    loss = compared["bits_per_byte"]
    assert [loss["first"], loss["second"]] == pytest.approx(values, abs=1e-4)
    assert loss["difference"] == pytest.approx(values[1] - values[0], abs=1e-4)
    assert loss["difference_interval"][0] < loss["difference"] < loss["difference_interval"][1]
    table = llm("evaluate", "-", "--compare", *names, input=TEXT).stdout
    assert table.splitlines()[1].split()[:5] == ["bits", "per", "byte", f"{values[0]:.4f}", f"{values[1]:.4f}"]
    refused = llm("evaluate", "-", "--compare", *names, "--model", model_directory, input=TEXT)
    assert refused.returncode == 2
