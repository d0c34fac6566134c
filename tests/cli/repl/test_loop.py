"""`llm generate --interactive` with lines from a pipe."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import quickfox
from quickfox.model import Model

Llm = Callable[..., subprocess.CompletedProcess[Any]]
RunLoop = Callable[..., tuple[str, str]]


@pytest.fixture
def run_loop(llm: Llm, model_directory: Path) -> RunLoop:
    """Runs the prompt loop on lines; returns standard output and standard error."""

    def run(*lines: str, options: tuple[object, ...] = ("--random-seed", 1, "--length", 10)) -> tuple[str, str]:
        script = "".join(f"{line}\n" for line in lines)
        result = llm("generate", "--interactive", "--model", model_directory, *options, input=script)
        assert result.returncode == 0, result.stderr
        return result.stdout, result.stderr

    return run


@pytest.fixture(scope="module")
def model(model_directory: Path) -> Model:
    return quickfox.load(model_directory)


def test_each_line_is_continued_with_the_next_random_seed(run_loop, model) -> None:
    first, second = (model.generate(seed, length=10, random_seed=n) for seed, n in (("the fox", 1), ("a dog", 2)))
    assert run_loop("the fox", "a dog") == (f"{first}\n{second}\n", "")


def test_the_random_seed_is_shown_once_and_reproduces_all_texts(run_loop) -> None:
    texts, messages = run_loop("fox", "dog", options=("--length", 10))
    random_seed = re.fullmatch(r"random seed: (\d+)\n", messages)[1]
    assert run_loop("fox", "dog", options=("--length", 10, "--random-seed", random_seed))[0] == texts


def test_an_empty_line_continues_the_current_text(run_loop, model) -> None:
    first = model.generate("the fox", length=10, random_seed=1)
    rest = model.generate(first, length=10, random_seed=2, echo=False)
    assert run_loop("the fox", "")[0] == f"{first}\n{rest}\n"


def test_the_context_of_a_text_without_prompt_begins_with_a_newline(run_loop, model) -> None:
    first = model.generate("", length=10, random_seed=1)
    rest = model.generate("\n" + first, length=10, random_seed=2, echo=False)
    assert run_loop("", "")[0] == f"{first}\n{rest}\n"


def test_a_text_that_ends_at_a_stop_string_is_continued_after_the_displayed_text(run_loop, model) -> None:
    whole = model.generate("ab", length=200, random_seed=1, echo=False)
    stop = whole[50:53]
    displayed = "ab" + whole[: whole.index(stop)]
    rest = model.generate(displayed, length=3, random_seed=2, echo=False)
    texts = run_loop("/length 200", f'/stop "{stop}"', "ab", "/stop none", "/length 3", "")[0]
    assert texts == f"{displayed}\n{rest}\n"


def test_the_last_of_several_samples_becomes_the_current_text(run_loop, model) -> None:
    first, second = model.generate("ab", length=10, random_seed=1, num_samples=2, echo=False)
    rest = model.generate("ab" + second, length=10, random_seed=2, echo=False)
    assert run_loop("/num-samples 2", "ab", "/num-samples 1", "")[0] == f"ab{first}\n---\n{second}\n{rest}\n"


def test_the_seed_of_the_command_line_is_the_first_prompt(run_loop, model) -> None:
    text = model.generate("/fox", length=5, random_seed=1)
    assert run_loop(options=("--seed", "/fox", "--length", 5, "--random-seed", 1))[0] == f"{text}\n"


def test_no_echo_omits_prompts(run_loop, model) -> None:
    options = ("--no-echo", "--length", 5, "--random-seed", 1)
    assert run_loop("fox", options=options)[0] == model.generate("fox", length=5, random_seed=1, echo=False) + "\n"


def test_a_backslash_at_the_end_continues_a_line(run_loop) -> None:
    assert run_loop("/length 0", "ab\\", "c\\", "", "d\\")[0] == "ab\nc\n\nd\n\n"


def test_settings_apply_to_later_texts(run_loop, model) -> None:
    text = model.generate("fox", length=20, temperature=0.3, top_k=2, random_seed=7)
    assert run_loop("/length 20", "/temperature 0.3", "/top-k 2", "/random-seed 7", "fox")[0] == f"{text}\n"


def test_settings_are_shown_on_standard_error(run_loop) -> None:
    assert run_loop("/temperature", "/top-k 4", "/top-k", "/stop", "/random-seed") == (
        "",
        "/temperature 0.8\n/top-k 4\n/stop none\n/random-seed 1\n",
    )
    all_settings = run_loop("/settings")[1]
    assert "/length 10\n" in all_settings
    assert "/logprobs" not in all_settings


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/temperature hot", "/temperature cannot be 'hot'"),
        ("/temperature -1", "/temperature must be at least 0.0, not -1"),
        ("/best-of 0", "/best-of must be at least 1, not 0"),
        ("/logit-bias e", "/logit-bias must be TEXT=X, such as e=-2, not 'e'"),
        ("/fox", "unknown command /fox: see /help; to use it as a prompt, type //fox"),
        ("/ fox", "unknown command /: see /help; to use it as a prompt, type //"),
        ("/quit now", "/quit takes no value"),
    ],
)
def test_an_invalid_line_is_reported_in_one_line_and_the_loop_continues(run_loop, model, line, message) -> None:
    text = model.generate("fox", length=10, random_seed=1)
    assert run_loop(line, "fox") == (f"{text}\n", f"{message}\n")


def test_an_error_names_settings_like_the_commands(run_loop) -> None:
    message = "/num-samples must be at most /best-of, which is 1, not 2\n"
    assert run_loop("/num-samples 2", "/best-of 1") == ("", message)


def test_a_prompt_with_an_invalid_bias_produces_no_output(run_loop) -> None:
    texts, messages = run_loop("/logit-bias €=1", "fox", "/logit-bias none", "/length 0", "dog")
    assert texts == "dog\n"
    assert "'€' is not one token of this model" in messages
    assert messages.count("\n") == 1


def test_unknown_characters_are_replaced_or_refused(run_loop) -> None:
    assert run_loop("/length 0", "fòx") == ("fox\n", "warning: replaced 'ò' by 'o'\n")
    texts, messages = run_loop("fòx", "fox", options=("--unknown", "error", "--random-seed", 1, "--length", 0))
    assert texts == "fox\n"
    assert messages.count("\n") == 1
    assert "U+00F2" in messages


def test_a_line_that_is_not_utf8_is_skipped(llm: Llm, model_directory: Path) -> None:
    options = ("--model", model_directory, "--length", 0, "--random-seed", 1)
    result = llm("generate", "--interactive", *options, input=b"a\nb\xff\nc\r\n", encoding=None)
    assert (result.returncode, result.stdout) == (0, b"a\nc\n")
    assert result.stderr == b"standard input line 2: not UTF-8\n"


def test_a_prompt_can_begin_with_a_slash_and_reset_clears_the_text(run_loop, model) -> None:
    first = model.generate("/fox", length=10, random_seed=1)  # the model does not know the slash
    second = model.generate("", length=10, random_seed=2)
    texts, messages = run_loop("//fox", "/reset", "", options=("--unknown", "skip", "--random-seed", 1, "--length", 10))
    assert texts == f"{first}\n{second}\n"
    assert "'/' (U+002F)" in messages
    assert messages.count("\n") == 1


def test_help_is_shown_and_quit_ends_the_loop(run_loop) -> None:
    texts, messages = run_loop("/help", "/quit", "fox")
    assert texts == ""
    assert "/temperature 0.7" in messages


def test_copies_are_limited_and_reported(run_loop, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("abcdefghijklmnopqrstuvwxyz" * 20)
    options = ("--novelty", corpus, "--max-copy", 4, "--random-seed", 1, "--length", 30)
    texts, messages = run_loop("abcd", "", options=options)
    assert "abcde" not in texts
    assert messages.count("longest stretch copied from the corpus") == 2


def test_colors_are_not_part_of_the_current_text(run_loop, model) -> None:
    colored = run_loop("fox", "", options=("--color", "--random-seed", 1, "--length", 10))[0]
    assert "\x1b[" in colored
    assert re.sub("\x1b\\[[0-9;]*m", "", colored) == run_loop("fox", "")[0]
