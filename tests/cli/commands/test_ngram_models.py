"""The commands that use a model, with an n-gram model and with its mixture with a network."""

import json
import math
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from random_models import TEXT as EXPORTED_TEXT
from random_models import bundle_of, tokenizer_for_text

import quickfox
from ngram_models import MIXTURE_LOSS, NETWORK_LOSS, NGRAM_LOSS, mix_with_ngrams
from quickfox.checkpoints.checkpoint import ModelBundle, save_checkpoint
from quickfox.export.registry import ExportFormat, extract_network
from quickfox.model import Model
from quickfox.models.mixture import begin_sampling

Llm = Callable[..., subprocess.CompletedProcess[Any]]

LINES = ["the quick brown fox", "jumps", "", "over the lazy dog", "zzzzzz", "xäß q"]
TEXT = "".join(f"{line}\n" for line in LINES)


@pytest.fixture(params=["mixture", "ngram"])
def directory(request: pytest.FixtureRequest) -> Path:
    """A model directory with n-grams."""
    path: Path = request.getfixturevalue(f"{request.param}_directory")
    return path


@pytest.fixture
def model(directory: Path) -> Model:
    return quickfox.load(directory)


@pytest.fixture
def generate(llm: Llm, directory: Path) -> Llm:
    """`llm generate` with the model."""
    return lambda *arguments, **settings: llm("generate", "--model", directory, *arguments, **settings)


def records(result: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert (result.returncode, result.stderr) == (0, "")
    return [json.loads(line) for line in result.stdout.splitlines()]


def stepwise_probs(model: Model, text: str, prompt_length: int | None = None) -> list[np.ndarray]:
    """The distribution after each character of a text, read one by one; those after the prompt are generated ones."""
    language_model = model.language_model
    state, rows = language_model.initial_state(1), []
    for position, token in enumerate(model.bundle.tokenizer.encode(text).tolist(), start=1):
        logits, state = language_model.forward(np.array([[token]]), state)
        weights = np.exp(logits[0, -1].astype(np.float64))
        rows.append(weights / weights.sum())
        if position == prompt_length:
            state = begin_sampling(language_model, state)
    return rows


# generate


def test_greedy_text_continues_the_training_text(generate: Llm) -> None:
    result = generate("--seed", "the quick", "--length", "20", "--temperature", "0")
    assert (result.returncode, result.stdout, result.stderr) == (0, "the quick brown fox jumps ove\n", "")


def test_a_sampled_text_is_that_of_the_api_streamed_or_not(generate: Llm, model: Model) -> None:
    result = generate("--seed", "the", "--length", "60", "--temperature", "1.3", "--random-seed", "4")
    text = model.generate("the", length=60, temperature=1.3, random_seed=4)
    assert result.stdout == f"{text}\n"
    config = model.sampling_config(length=60, temperature=1.3, random_seed=4)
    assert "the" + "".join(model.stream(model.read_prompt("the"), config)) == text


def test_each_sample_of_a_batch_is_the_same_as_alone(generate: Llm, model: Model) -> None:
    options = {"length": 40, "temperature": 1.5, "random_seed": 2, "num_samples": 20}
    arguments = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
    texts = generate("--seed", "fox", *arguments).stdout.removesuffix("\n").split("\n---\n")
    assert len(texts) == len(set(texts)) == 20
    prompt, config = model.read_prompt("fox"), model.sampling_config(**options)
    for sample in (0, 7, 19):
        assert "fox" + "".join(model.stream(prompt, config, sample)) == texts[sample]


def test_prompts_of_a_file_have_the_same_texts_as_alone(generate: Llm, model: Model, tmp_path: Path) -> None:
    seeds = ["the", "lazy dog", "zz", "\n"]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(seed) + "\n" for seed in seeds))
    answers = records(generate("--prompts", "prompts.jsonl", "--length", "30", "--random-seed", "5"))
    assert [answer["text"] for answer in answers] == [model.generate(seed, length=30, random_seed=5) for seed in seeds]


def test_a_prompt_read_at_once_is_the_same_as_read_by_token(generate: Llm, model: Model) -> None:
    seed = "xäq the quick brown fox jumps over the lazy d"
    (answer,) = records(generate("--seed", seed, "--length", "1", "--json", "--logprobs", "30", "--random-seed", "1"))
    tokens = model.bundle.tokenizer.token_bytes
    expected = {tokens(token_id).decode(): prob for token_id, prob in enumerate(stepwise_probs(model, seed)[-1])}
    found = {token: math.exp(logprob) for token, logprob in answer["logprobs"][0]["top"]}
    assert found == pytest.approx(expected, abs=1e-5)
    assert sum(found.values()) == pytest.approx(1)


def test_log_probabilities_add_up(generate: Llm) -> None:
    (answer,) = records(generate("--seed", "a", "--length", "12", "--random-seed", "1", "--json", "--logprobs", "30"))
    assert "".join(token["token"] for token in answer["logprobs"]) == answer["text"][1:]
    assert sum(token["logprob"] for token in answer["logprobs"]) == pytest.approx(answer["logprob"])
    for token in answer["logprobs"]:
        assert [token["token"], token["logprob"]] in token["top"]
        assert sum(math.exp(logprob) for _, logprob in token["top"]) == pytest.approx(1, abs=1e-5)


def test_beam_search_finds_the_most_probable_text(generate: Llm, model: Model) -> None:
    """With as many beams as texts of two characters, no text is lost."""
    arguments = ("--seed", "e", "--length", "2", "--json", "--logprobs", "0", "--random-seed", "1")
    (found,) = records(generate(*arguments, "--num-beams", "900"))
    characters = sorted(model.bundle.tokenizer.known_characters)
    encode = model.bundle.tokenizer.encode

    def logprob(text: str) -> float:
        rows = stepwise_probs(model, "e" + text, prompt_length=1)
        return sum(math.log(row[token]) for row, token in zip(rows, encode(text).tolist(), strict=False))

    best = max(logprob(first + second) for first in characters for second in characters)
    assert found["logprob"] == pytest.approx(best, abs=1e-4)


def test_best_of_returns_the_most_probable_samples(generate: Llm) -> None:
    arguments = ("--seed", "a", "--length", "20", "--random-seed", "1", "--json")
    drawn = records(generate(*arguments, "--num-samples", "5", "--logprobs", "0"))
    best = records(generate(*arguments, "--best-of", "5", "--num-samples", "2"))
    ranked = sorted(drawn, key=lambda answer: -answer["logprob"])
    assert [answer["text"] for answer in best] == [answer["text"] for answer in ranked[:2]]


def test_options_change_the_mixed_distribution(generate: Llm, model: Model) -> None:
    arguments = ("--seed", "the quick brow", "--length", "1", "--temperature", "0", "--no-echo")
    assert generate(*arguments).stdout == "n\n"
    second = model.bundle.tokenizer.token_bytes(int(np.argsort(stepwise_probs(model, "the quick brow")[-1])[-2]))
    assert generate(*arguments, "--logit-bias", "n=-inf").stdout == f"{second.decode()}\n"
    narrow = ("--seed", "a", "--length", "60", "--random-seed", "3")
    greedy = generate(*narrow[:4], "--temperature", "0").stdout
    assert generate(*narrow, "--top-k", "1").stdout == generate(*narrow, "--top-p", "1e-9").stdout == greedy


def test_the_prompt_loop_continues_lines(generate: Llm, model: Model) -> None:
    result = generate("--interactive", "--random-seed", "1", "--length", "10", input="the fox\n\n")
    first = model.generate("the fox", length=10, random_seed=1)
    rest = model.generate(first, length=10, random_seed=2, echo=False)
    assert (result.returncode, result.stdout) == (0, f"{first}\n{rest}\n")


def test_color_does_not_change_the_text(generate: Llm) -> None:
    arguments = ("--seed", "a", "--length", "20", "--random-seed", "1")
    colored = generate(*arguments, "--color").stdout
    assert "\x1b[" in colored
    plain = "".join(part.partition("m")[2] if index else part for index, part in enumerate(colored.split("\x1b[")))
    assert plain == generate(*arguments).stdout


# evaluate and score


def test_evaluate_is_the_mean_loss_of_the_text_read_by_token(llm: Llm, directory: Path, model: Model) -> None:
    (measured,) = records(llm("evaluate", "-", "--model", directory, "--json", input=TEXT))
    targets = model.bundle.tokenizer.encode(TEXT).tolist()[1:]
    losses = [-math.log(row[token]) for row, token in zip(stepwise_probs(model, TEXT), targets, strict=False)]
    assert measured["nats_per_token"] == pytest.approx(sum(losses) / len(losses), abs=1e-4)
    assert measured["tokens"] == len(targets)


def test_ngrams_lower_the_loss_of_their_text(
    llm: Llm, model_directory: Path, mixture_directory: Path, ngram_directory: Path
) -> None:
    text = "the quick brown fox jumps over the lazy dog\n" * 20
    losses = [
        records(llm("evaluate", "-", "--model", path, "--json", input=text))[0]["nats_per_token"]
        for path in (ngram_directory, mixture_directory, model_directory)
    ]
    assert max(losses[:2]) < 0.2 < losses[2]
    assert losses[1] < losses[2] / 2


def test_a_line_has_the_same_score_in_a_batch_as_alone(llm: Llm, directory: Path, model: Model) -> None:
    scored = records(llm("score", "--model", directory, "--json", input=TEXT))
    assert [row["text"] for row in scored] == LINES
    for row in scored:
        alone = model.score([row["text"]])[0].bits_per_character
        assert row["bits_per_character"] == (alone if alone is None else pytest.approx(alone, abs=1e-4))
    top = llm("score", "--model", directory, "--top", "2", input=TEXT)
    assert [line.split("\t")[-1] for line in top.stdout.splitlines()] == ["zzzzzz", "xäß q"]


def test_the_surprisal_of_a_document_is_that_of_its_text(llm: Llm, directory: Path, model: Model) -> None:
    (row,) = records(llm("score", "--model", directory, "--by", "document", "--json", input=TEXT))
    rows = stepwise_probs(model, "\n" + TEXT)
    targets = model.bundle.tokenizer.encode(TEXT).tolist()
    bits = [-math.log2(probs[token]) for probs, token in zip(rows, targets, strict=False)]
    assert row["bits_per_character"] == pytest.approx(sum(bits) / len(bits), abs=1e-3)


# info


def rows_of(result: subprocess.CompletedProcess[str]) -> dict[str, str]:
    assert (result.returncode, result.stderr) == (0, "")
    return {name: value.strip() for name, _, value in (line.partition("  ") for line in result.stdout.splitlines())}


def test_info_of_a_mixture_shows_the_ngrams_and_both_losses(llm: Llm, mixture_directory: Path) -> None:
    rows = rows_of(llm("info", mixture_directory))
    ngrams = quickfox.load(mixture_directory).bundle.config.ngrams
    assert rows["n-grams"] == f"5-gram model, {sum(ngrams):,} n-grams"
    assert (rows["architecture"], rows["hidden_dim"]) == ("lstm", "7")
    assert rows["validation loss"] == f"{MIXTURE_LOSS:.4f}"
    assert rows["network alone"] == f"{NETWORK_LOSS:.4f}"
    assert "ngrams" not in rows


def test_info_of_an_ngram_model_has_no_rows_of_a_network(llm: Llm, ngram_directory: Path) -> None:
    rows = rows_of(llm("info", ngram_directory))
    assert list(rows) == [
        "model",
        "architecture",
        "vocabulary_size",
        "n-grams",
        "validation loss",
        "training state",
        "tokenizer",
        "min_count",
        "characters",
    ]
    assert rows["validation loss"] == f"{NGRAM_LOSS:.4f}"


# export


@pytest.fixture(scope="module")
def transformer() -> ModelBundle:
    """A transformer with random weights, mixed with n-grams."""
    return mix_with_ngrams(bundle_of(tokenizer_for_text("char", end_of_text=False)), EXPORTED_TEXT, order=3)


def test_an_export_is_the_network_alone_and_says_so(llm: Llm, tmp_path: Path, transformer: ModelBundle) -> None:
    save_checkpoint(tmp_path / "mixture", transformer, None)
    save_checkpoint(tmp_path / "network", extract_network(transformer), None)
    wrote = "config.json, generation_config.json, model.safetensors, tokenizer.json, tokenizer_config.json"
    result = llm("export", "mixture", "--format", "huggingface", "-o", "out")
    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr.splitlines() == [
        "the export is the network alone: validation loss 2.7500, with the n-gram model 1.5000",
        f"wrote out: {wrote}",
    ]
    alone = llm("export", "network", "--format", "huggingface", "-o", "alone")
    assert (alone.returncode, alone.stderr) == (0, f"wrote alone: {wrote}\n")
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("out", "alone")]
    assert files[0] == files[1]


def test_an_export_without_measured_losses_says_what_it_lacks(
    llm: Llm, tmp_path: Path, transformer: ModelBundle
) -> None:
    network = bundle_of(transformer.tokenizer)
    mixture = ModelBundle(transformer.config, network.tokenizer, transformer.parameters, 1, None, {})
    save_checkpoint(tmp_path / "mixture", mixture, None)
    result = llm("export", "mixture", "--format", "huggingface", "-o", "out")
    assert result.stderr.splitlines()[0] == "the export is the network alone, without the n-gram model"


@pytest.mark.parametrize("export_format", get_args(ExportFormat))
def test_an_ngram_model_cannot_be_exported(
    llm: Llm, ngram_directory: Path, tmp_path: Path, export_format: ExportFormat
) -> None:
    result = llm("export", ngram_directory, "--format", export_format, "-o", "out")
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "the architecture ngram, which has no network to export" in result.stderr
    assert not (tmp_path / "out").exists()
