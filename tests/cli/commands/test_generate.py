"""`llm generate`: sources of the prompt, sampling options, formats and messages."""

import json
import math
import os
import re
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


def test_prints_the_seed_and_length_new_characters(generate: Llm) -> None:
    result = generate("--seed", "the fox", "--length", "20", "--random-seed", "1")
    assert result.returncode == 0
    assert result.stdout.startswith("the fox")
    assert len(result.stdout) == len("the fox") + 20 + len("\n")
    assert result.stderr == ""


def test_generates_the_same_text_as_the_api(generate: Llm, model_directory: Path) -> None:
    text = quickfox.load(model_directory).generate("a", length=50, temperature=1.2, top_k=5, random_seed=9)
    result = generate("--seed", "a", "--length", 50, "--temperature", 1.2, "--top-k", 5, "--random-seed", 9)
    assert result.stdout == f"{text}\n"


def test_prompt_is_an_alias_of_seed_and_no_echo_omits_it(generate: Llm) -> None:
    echoed = generate("--seed", "fox", "--random-seed", "1").stdout
    assert generate("--prompt", "fox", "--random-seed", "1", "--no-echo").stdout == echoed.removeprefix("fox")


def test_a_random_seed_that_is_not_given_is_shown_and_reproduces_the_text(generate: Llm) -> None:
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
def test_standard_input_without_one_line_end_is_the_prompt(generate: Llm, piped: str, seed: str) -> None:
    expected = generate("--seed", seed, "--random-seed", "1").stdout
    assert generate("--random-seed", "1", input=piped).stdout == expected


def test_a_seed_has_precedence_over_standard_input(generate: Llm) -> None:
    assert generate("--seed", "fox", "--length", "0", input="cat").stdout == "fox\n"


def test_an_empty_prompt_starts_from_a_newline_that_is_not_shown(generate: Llm) -> None:
    after_newline = generate("--seed", "\n", "--random-seed", "1", "--no-echo").stdout
    assert generate("--random-seed", "1").stdout == after_newline


def test_json_has_one_line_per_sample(generate: Llm, model_directory: Path) -> None:
    lines = generate("--seed", "€ fox", "--length", "5", "--num-samples", "2", "--random-seed", "7", "--json").stdout
    first, second = map(json.loads, lines.splitlines())
    assert list(first) == ["seed", "text", "tokens", "finish_reason", "random_seed", "sample", "model"]
    assert first["text"].startswith(" fox")
    assert len(first["text"]) == len(" fox") + 5
    assert first["text"] != second["text"]
    assert (first["seed"], first["tokens"], first["finish_reason"], first["random_seed"]) == (" fox", 5, "length", 7)
    assert (first["sample"], second["sample"]) == (0, 1)
    assert first["model"] == str(model_directory)


@pytest.mark.parametrize(
    ("unknown", "text", "message"),
    [
        ("fold", "aebe", "replaced 'é' by 'e' (2); left out 1 character that the model does not know: '€' (U+20AC)"),
        ("skip", "ab", "left out 3 characters that the model does not know: 'é' (U+00E9), '€' (U+20AC)"),
    ],
)
def test_replaced_and_omitted_characters_are_reported_in_one_line(
    generate: Llm, unknown: str, text: str, message: str
) -> None:
    result = generate("--seed", "aéb€é", "--length", "0", "--random-seed", "1", "--unknown", unknown)
    assert (result.returncode, result.stdout) == (0, f"{text}\n")
    assert result.stderr == f"warning: {message}\n"


def test_unknown_characters_can_be_refused(generate: Llm) -> None:
    result = generate("--seed", "aé", "--unknown", "error")
    assert (result.returncode, result.stdout) == (65, "")
    assert result.stderr.count("\n") == 1
    assert "U+00E9" in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="arguments are not bytes on Windows")
def test_bytes_of_a_seed_that_are_not_utf8_are_unknown_characters(generate: Llm) -> None:
    result = generate("--seed", os.fsdecode(b"a\xffb"), "--length", "0", "--random-seed", "1", "--json")
    assert json.loads(result.stdout)["text"] == "ab"


def test_a_number_as_seed_gets_a_hint(generate: Llm) -> None:
    assert "--random-seed" in generate("--seed", "42", "--random-seed", "1").stderr


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--temperature", "-0.5", "--temperature must be at least 0"),
        ("--temperature", "nan", "--temperature must be"),
        ("--temperature", "inf", "--temperature must be"),
        ("--length", "-1", "--length must be at least 0, not -1"),
        ("--top-k", "0", "--top-k must be at least 1, not 0"),
        ("--top-p", "0", "--top-p must be at least"),
        ("--min-p", "1.5", "--min-p must be at most 1.0, not 1.5"),
        ("--repetition-penalty", "0", "--repetition-penalty must be at least"),
        ("--logit-bias", "e", "--logit-bias must be TEXT=X, such as e=-2, not 'e'"),
        ("--logit-bias", "e=nan", "--logit-bias of 'e' must be -inf or between -1e+09 and 1e+09, not nan"),
        ("--stop", "", "--stop must not be an empty text"),
        ("--best-of", "0", "--best-of must be at least 1, not 0"),
        ("--max-copy", "5", "--max-copy needs the corpus"),
        ("--logprobs", "2", "--logprobs needs --json"),
        ("--num-samples", "0", "--num-samples must be at least 1, not 0"),
        ("--random-seed", "-3", "--random-seed must be at least 0, not -3"),
        ("--threads", "0", "--threads"),
    ],
)
def test_a_value_out_of_range_is_refused_before_the_model_is_read(
    llm: Llm, option: str, value: str, message: str
) -> None:
    result = llm("generate", "--model", "nowhere", option, value)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


def test_top_k_above_the_vocabulary_size_keeps_all_tokens(generate: Llm) -> None:
    unrestricted = generate("--seed", "a", "--random-seed", "1").stdout
    assert generate("--seed", "a", "--random-seed", "1", "--top-k", "10000").stdout == unrestricted


def test_standard_input_that_is_not_utf8_is_refused(generate: Llm) -> None:
    result = generate(input=b"abc\xff", encoding=None)
    assert result.returncode == 65
    assert b"not UTF-8 at byte 3" in result.stderr


def test_without_a_model_the_error_names_llm_train(llm: Llm) -> None:
    result = llm("generate", "--seed", "a")
    assert (result.returncode, result.stdout) == (66, "")
    assert "llm train" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_path_that_is_not_a_model_is_refused(llm: Llm, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "model.pt").write_bytes(b"PK\x03\x04")
    for path, status in (("folder", 65), ("model.pt", 65), ("nowhere", 66)):
        result = llm("generate", "--model", path, "--seed", "a")
        assert (result.returncode, result.stdout) == (status, "")
        assert result.stderr.count("\n") == 1
        assert path in result.stderr


def test_the_model_of_quickfox_model_is_announced(llm: Llm, model_directory: Path, environment: dict[str, str]) -> None:
    result = llm("generate", "--temperature", "0", env={**environment, "QUICKFOX_MODEL": str(model_directory)})
    assert result.returncode == 0
    assert str(model_directory) in result.stderr
    assert "QUICKFOX_MODEL" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--seed", "a", "--seed-file", "b"), "--seed and --seed-file exclude each other"),
        (("--seed-file", "a", "--prompts", "b"), "--seed-file and --prompts exclude each other"),
        (("--prompts", "b", "--color"), "--color and --prompts exclude each other"),
        (("--json", "--interactive"), "--interactive and --json exclude each other"),
        (("--num-beams", "2", "--best-of", "2"), "--num-beams and --best-of exclude each other"),
        (("--num-beams", "2", "--num-samples", "3"), "--num-samples must be at most --num-beams, which is 2, not 3"),
    ],
)
def test_options_that_contradict_each_other_are_refused(llm: Llm, arguments: tuple[str, ...], message: str) -> None:
    result = llm("generate", "--model", "nowhere", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


def test_a_seed_file_without_one_line_end_is_the_prompt(generate: Llm, tmp_path: Path) -> None:
    (tmp_path / "seed.txt").write_bytes(b"the\nfox\r\n")
    expected = generate("--seed", "the\nfox", "--random-seed", "1").stdout
    assert generate("--seed-file", "seed.txt", "--random-seed", "1").stdout == expected
    assert generate("--seed-file", "nowhere.txt").returncode == 66


def test_a_stop_string_ends_the_text_and_is_not_shown(generate: Llm) -> None:
    whole = generate("--seed", "a", "--length", "200", "--random-seed", "1", "--no-echo").stdout
    stop = whole[50:53]
    result = generate("--seed", "a", "--length", "200", "--random-seed", "1", "--no-echo", "--stop", stop)
    assert result.stdout == whole[: whole.index(stop)] + "\n"


def test_a_bias_of_minus_infinity_bans_a_token(generate: Llm) -> None:
    arguments = ("--seed", "a", "--length", "300", "--random-seed", "1", "--no-echo")
    assert "e" in generate(*arguments).stdout
    assert "e" not in generate(*arguments, "--logit-bias", "e=-inf").stdout
    refused = generate(*arguments, "--logit-bias", "th=1")
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    assert "'th' is not one token of this model" in refused.stderr


def test_log_probabilities_add_up(generate: Llm) -> None:
    result = generate("--seed", "a", "--length", "5", "--random-seed", "1", "--json", "--logprobs", "30")
    answer = json.loads(result.stdout)
    assert "".join(token["token"] for token in answer["logprobs"]) == answer["text"][1:]
    assert sum(token["logprob"] for token in answer["logprobs"]) == pytest.approx(answer["logprob"])
    for token in answer["logprobs"]:
        assert [token["token"], token["logprob"]] in token["top"]
        assert sum(math.exp(logprob) for _, logprob in token["top"]) == pytest.approx(1)


def test_best_of_returns_the_most_probable_samples_first(generate: Llm) -> None:
    arguments = ("--seed", "a", "--length", "20", "--random-seed", "1", "--json")
    drawn = [
        json.loads(line) for line in generate(*arguments, "--num-samples", "5", "--logprobs", "0").stdout.splitlines()
    ]
    drawn.sort(key=lambda answer: -answer["logprob"])
    best = [
        json.loads(line) for line in generate(*arguments, "--best-of", "5", "--num-samples", "2").stdout.splitlines()
    ]
    assert [answer["text"] for answer in best] == [answer["text"] for answer in drawn[:2]]


def test_beam_search_finds_a_more_probable_text_than_greedy_decoding_without_randomness(generate: Llm) -> None:
    arguments = ("--seed", "a", "--length", "8", "--json", "--logprobs", "0")
    greedy = json.loads(generate(*arguments, "--temperature", "0").stdout)
    found = json.loads(generate(*arguments, "--num-beams", "16").stdout)
    assert found["logprob"] >= greedy["logprob"] - 1e-6  # rounding, if it is the same text
    assert generate("--seed", "a", "--num-beams", "4").stderr == ""


def test_color_does_not_change_the_text(generate: Llm) -> None:
    arguments = ("--seed", "a", "--length", "40", "--random-seed", "1")
    colored = generate(*arguments, "--color").stdout
    assert "\x1b[" in colored
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored) == generate(*arguments).stdout
