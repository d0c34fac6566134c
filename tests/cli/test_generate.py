"""`llm generate`: what is continued, how it is drawn, and what is said about it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import quickfox

Llm = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def generate(llm: Llm, model_directory: Path) -> Llm:
    """`llm generate` with the random model."""
    return lambda *arguments, **settings: llm("generate", "--model", model_directory, *arguments, **settings)


def test_prints_the_seed_and_as_many_new_characters_as_asked_for(generate: Llm) -> None:
    result = generate("--seed", "the fox", "--length", "20", "--random-seed", "1")
    assert result.returncode == 0
    assert result.stdout.startswith("the fox")
    assert len(result.stdout) == len("the fox") + 20 + len("\n")
    assert result.stderr == ""


def test_is_what_the_api_generates(generate: Llm, model_directory: Path) -> None:
    text = quickfox.load(model_directory).generate("a", length=50, temperature=1.2, top_k=5, random_seed=9)
    result = generate("--seed", "a", "--length", 50, "--temperature", 1.2, "--top-k", 5, "--random-seed", 9)
    assert result.stdout == f"{text}\n"


def test_prompt_is_another_name_of_seed_and_no_echo_leaves_it_out(generate: Llm) -> None:
    echoed = generate("--seed", "fox", "--random-seed", "1").stdout
    assert generate("--prompt", "fox", "--random-seed", "1", "--no-echo").stdout == echoed.removeprefix("fox")


def test_the_drawn_random_seed_is_shown_and_repeats_the_text(generate: Llm) -> None:
    first = generate("--seed", "fox")
    assert first.stderr.startswith("random seed: ")
    again = generate("--seed", "fox", "--random-seed", first.stderr.removeprefix("random seed: ").strip())
    assert again.stdout == first.stdout
    assert generate("--seed", "fox").stdout != first.stdout


def test_temperature_0_needs_no_random_seed(generate: Llm) -> None:
    first, second = generate("--temperature", "0"), generate("--temperature", "0", "--random-seed", "5")
    assert first.stdout == second.stdout
    assert first.stderr == ""


def test_samples_differ_and_are_separated_by_a_line(generate: Llm) -> None:
    samples = generate("--seed", "a", "--length", "30", "--num-samples", "3", "--random-seed", "1").stdout
    first, second, third = samples.split("\n---\n")
    assert len({first, second, third.removesuffix("\n")}) == 3
    assert generate("--seed", "a", "--length", "30", "--random-seed", "1").stdout == f"{first}\n"


@pytest.mark.parametrize(
    ("piped", "seed"),
    [
        ("romeo\n", "romeo"),
        ("romeo", "romeo"),
        ("romeo\n\n", "romeo\n"),
        ("romeo\r\n", "romeo"),
        ("\ufeffromeo", "romeo"),
    ],
)
def test_standard_input_is_the_prompt_less_one_line_end(generate: Llm, piped: str, seed: str) -> None:
    expected = generate("--seed", seed, "--random-seed", "1").stdout
    assert generate("--random-seed", "1", input=piped).stdout == expected


def test_a_seed_wins_over_standard_input(generate: Llm) -> None:
    assert generate("--seed", "fox", "--length", "0", input="cat").stdout == "fox\n"


def test_an_empty_prompt_starts_from_a_newline_that_is_not_shown(generate: Llm) -> None:
    after_newline = generate("--seed", "\n", "--random-seed", "1", "--no-echo").stdout
    assert generate("--random-seed", "1").stdout == after_newline


def test_json_has_a_line_a_sample(generate: Llm, model_directory: Path) -> None:
    lines = generate("--seed", "é fox", "--length", "5", "--num-samples", "2", "--random-seed", "7", "--json").stdout
    first, second = map(json.loads, lines.splitlines())
    assert list(first) == ["seed", "text", "tokens", "finish_reason", "random_seed", "sample", "model"]
    assert first["text"].startswith(" fox")
    assert len(first["text"]) == len(" fox") + 5
    assert first["text"] != second["text"]
    assert (first["seed"], first["tokens"], first["finish_reason"], first["random_seed"]) == (" fox", 5, "length", 7)
    assert (first["sample"], second["sample"]) == (0, 1)
    assert first["model"] == str(model_directory)


def test_unknown_characters_are_left_out_with_one_warning_that_names_them(generate: Llm) -> None:
    result = generate("--seed", "aéb€é", "--length", "0", "--random-seed", "1")
    assert (result.returncode, result.stdout) == (0, "ab\n")
    assert result.stderr.count("\n") == 1
    assert "left out 3 characters" in result.stderr
    assert "'é' (U+00E9), '€' (U+20AC)" in result.stderr


def test_strict_refuses_unknown_characters(generate: Llm) -> None:
    result = generate("--seed", "aé", "--strict")
    assert (result.returncode, result.stdout) == (65, "")
    assert result.stderr.count("\n") == 1
    assert "U+00E9" in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="arguments are not bytes on Windows")
def test_a_seed_that_is_no_utf8_is_a_seed_with_unknown_characters(generate: Llm) -> None:
    result = generate("--seed", os.fsdecode(b"a\xffb"), "--length", "0", "--random-seed", "1", "--json")
    assert json.loads(result.stdout)["text"] == "ab"


def test_a_number_as_seed_gets_a_hint(generate: Llm) -> None:
    assert "--random-seed" in generate("--seed", "42", "--random-seed", "1").stderr


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--temperature", "-0.5", "temperature must be at least 0"),
        ("--temperature", "nan", "temperature must be"),
        ("--temperature", "inf", "temperature must be"),
        ("--length", "-1", "length must be at least 0, not -1"),
        ("--top-k", "0", "top-k must be at least 1, not 0"),
        ("--num-samples", "0", "num-samples must be at least 1, not 0"),
        ("--random-seed", "-3", "random-seed must be at least 0, not -3"),
        ("--threads", "0", "--threads"),
    ],
)
def test_a_value_out_of_range_is_refused_before_anything_is_read(llm: Llm, option: str, value: str, said: str) -> None:
    result = llm("generate", "--model", "nowhere", option, value)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert said in result.stderr


def test_top_k_above_the_vocabulary_means_all_of_it(generate: Llm) -> None:
    everything = generate("--seed", "a", "--random-seed", "1").stdout
    assert generate("--seed", "a", "--random-seed", "1", "--top-k", "10000").stdout == everything


def test_standard_input_that_is_not_utf8_is_refused(generate: Llm) -> None:
    result = generate(input=b"abc\xff", encoding=None)
    assert result.returncode == 65
    assert b"not UTF-8 at byte 3" in result.stderr


def test_without_a_model_it_says_how_to_get_one(llm: Llm) -> None:
    result = llm("generate", "--seed", "a")
    assert (result.returncode, result.stdout) == (66, "")
    assert "llm train" in result.stderr
    assert result.stderr.count("\n") == 1


def test_what_is_no_model_is_refused(llm: Llm, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "model.pt").write_bytes(b"PK\x03\x04")
    for path, status in (("folder", 65), ("model.pt", 65), ("nowhere", 66)):
        result = llm("generate", "--model", path, "--seed", "a")
        assert (result.returncode, result.stdout) == (status, "")
        assert result.stderr.count("\n") == 1
        assert path in result.stderr


def test_the_model_of_the_environment_is_named(llm: Llm, model_directory: Path, environment: dict[str, str]) -> None:
    result = llm("generate", "--temperature", "0", env={**environment, "LLM_MODEL": str(model_directory)})
    assert result.returncode == 0
    assert str(model_directory) in result.stderr
    assert "LLM_MODEL" in result.stderr
