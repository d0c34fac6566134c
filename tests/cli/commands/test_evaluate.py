"""`llm evaluate`: results as a table and as JSON, equal to those of the Python API."""

import dataclasses
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import quickfox
from quickfox.checkpoints.checkpoint import load_model, save_checkpoint
from quickfox.files.json import parse_json

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
