"""Prompts that end within a word, or in a space: greedy text does not depend on where the prompt ends."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quickfox.config.model import TokenizerKind, ngram_config
from quickfox.config.sampling import SamplingConfig
from quickfox.generation.completion import complete
from quickfox.generation.healing import MAX_HEALED_TOKENS, agreeing_tokens, heal_prompt
from quickfox.generation.stopping import Completion
from quickfox.models.ngram.kneser_ney import estimate_ngrams
from quickfox.models.ngram.model import NgramLanguageModel
from quickfox.tokenizers.base import Tokenizer
from quickfox.tokenizers.build import build_tokenizer

TEXT = "The quick brown fox jumps over the lazy dog, and it's quickly gone.\nThen 12  dogs\n\tbark: «é» " * 30
every_kind = pytest.mark.parametrize("kind", ["char", "byte", "word", "bpe"])


@cache
def trained(kind: TokenizerKind) -> tuple[Tokenizer, NgramLanguageModel]:
    tokenizer = build_tokenizer(kind, [TEXT], 330 if kind in ("word", "bpe") else None)
    ids = tokenizer.encode(TEXT)
    estimate = estimate_ngrams(ids, tokenizer.vocabulary_size, 8, 10_000)
    return tokenizer, NgramLanguageModel(ngram_config(tokenizer.vocabulary_size, estimate.ngrams), estimate.tensors)


def continuation(kind: TokenizerKind, prompt: str, **options: object) -> Completion:
    tokenizer, model = trained(kind)
    config = SamplingConfig(**{"temperature": 0.0, "length": 24, **options})  # type: ignore[arg-type]
    events = list(complete(model, tokenizer, tokenizer.encode(prompt), config))
    completion = events[-1]
    assert isinstance(completion, Completion)
    assert "".join(event.text for event in events[:-1]) == completion.text  # type: ignore[union-attr]
    return completion


@every_kind
@settings(max_examples=40)
@given(start=st.integers(0, 94), end=st.integers(1, 80), cut=st.integers(0, 40))
def test_greedy_text_does_not_depend_on_where_the_prompt_ends(
    kind: TokenizerKind, start: int, end: int, cut: int
) -> None:
    prompt = TEXT[94 : 94 + start + end]
    shorter = prompt[: max(1, len(prompt) - cut)]
    whole, from_shorter = prompt + continuation(kind, prompt).text, shorter + continuation(kind, shorter).text
    if from_shorter.startswith(prompt):
        length = min(len(whole), len(from_shorter))
        assert whole[:length] == from_shorter[:length]
    assert whole.startswith(prompt)


@pytest.mark.parametrize("kind", ["word", "bpe"])
@pytest.mark.parametrize(
    "prompt", ["The qu", "The quick", "The quick ", "The quick brown f", "it's quickly gone.\n", "Then 1"]
)
def test_a_prompt_that_ends_anywhere_is_continued_as_in_training(kind: TokenizerKind, prompt: str) -> None:
    text = prompt + continuation(kind, prompt, length=8).text
    assert text in "\n" + TEXT


@every_kind
@given(text=st.text(max_size=50), more=st.text(max_size=20))
def test_the_tokens_that_are_kept_do_not_depend_on_what_follows(kind: TokenizerKind, text: str, more: str) -> None:
    tokenizer, _ = trained(kind)
    known = "".join(character for character in text + more if character in tokenizer.known_characters)
    prompt = known[: len(text)]
    ids = tokenizer.encode(prompt)
    healed = heal_prompt(tokenizer, ids)
    if not len(ids):
        return
    kept = b"".join(tokenizer.token_bytes(token_id) for token_id in healed.token_ids.tolist())
    if kept + healed.rest == prompt.encode():
        assert tokenizer.encode(known)[: len(healed.token_ids)].tolist() == healed.token_ids.tolist()
    else:  # nothing is kept: the text starts as any other
        assert (kept, healed.rest) == (b"\n", prompt.encode())


@pytest.mark.parametrize(("kind", "prompt", "rest"), [
    ("char", "The qu", ""), ("byte", "The qu", ""),
    ("word", "The qu", " qu"), ("word", "The quick\n", ""), ("word", "The  ", " "), ("word", "dog, ", " "),
    ("bpe", "The qu", " qu"), ("bpe", "The quick\n", "\n"), ("bpe", "The  ", "  "),
])  # fmt: skip
def test_the_rest_of_a_prompt(kind: TokenizerKind, prompt: str, rest: str) -> None:
    tokenizer, _ = trained(kind)
    assert heal_prompt(tokenizer, tokenizer.encode(prompt)).rest == rest.encode()


@pytest.mark.parametrize("length", [99, 100, 101, 102])
def test_the_number_of_tokens_that_are_taken_off_is_bounded(length: int) -> None:
    """They begin with a whole character, of which each is three tokens."""
    tokenizer, _ = trained("bpe")
    ids = tokenizer.encode("ก" * length)
    healed = heal_prompt(tokenizer, ids)
    taken_off = len(ids) - len(healed.token_ids)
    assert MAX_HEALED_TOKENS - 3 < taken_off <= MAX_HEALED_TOKENS
    assert healed.rest.decode() == "ก" * (taken_off // 3)


@pytest.mark.parametrize("length", [50, 51, 52])
@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_a_prompt_is_healed_after_any_number_of_other_characters(kind: TokenizerKind, length: int) -> None:
    tokenizer, _ = trained(kind)
    assert heal_prompt(tokenizer, tokenizer.encode("ก" * length + " The qu")).rest == b" qu"


def test_token_ids_that_are_no_text_are_not_healed() -> None:
    tokenizer, _ = trained("bpe")
    for character in ("ก", "é"):
        ids = tokenizer.encode(character)
        for part in (ids[:-1], ids[1:], [*tokenizer.encode("a"), *ids[1:], *tokenizer.encode(" b")]):
            assert heal_prompt(tokenizer, part).rest.decode() is not None


def test_tokens_agree_if_one_is_the_start_of_the_other() -> None:
    tokens = [b"a", b"ab", b"abc", b"b", b"", b"ac"]
    assert agreeing_tokens(tokens, b"ab").tolist() == [0, 1, 2]
    assert agreeing_tokens(tokens, b"x").tolist() == []


def test_the_length_and_the_stop_strings_are_those_of_the_new_text() -> None:
    completion = continuation("word", "The quick brown fox jumps o", length=3)
    assert completion.text == "ver the lazy"
    assert (completion.token_count, completion.finish_reason) == (3, "length")
    stopped = continuation("word", "The quick brown fox jumps ov", stop=("over", "lazy"))
    assert (stopped.text, stopped.finish_reason) == ("er the ", "stop")


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_the_alternatives_of_the_first_token_continue_the_prompt(kind: TokenizerKind) -> None:
    first = continuation(kind, "The quick brown f", logprobs=5).tokens[0]
    assert first.text == "ox"
    assert first.alternatives[0] == ("ox", first.logprob)
    assert sorted(first.alternatives, key=lambda each: -each[1]) == list(first.alternatives)
    tokens = trained(kind)[0].tokens
    rest = heal_prompt(trained(kind)[0], trained(kind)[0].encode("The quick brown f")).rest
    assert {text for text, _ in first.alternatives} <= {
        token[len(rest) :].decode() for token in tokens if token.startswith(rest)
    } - {""}


def test_samples_of_a_batch_are_those_of_one() -> None:
    tokenizer, model = trained("bpe")
    config = SamplingConfig(temperature=1.0, length=12, num_samples=5, random_seed=3)
    ids = tokenizer.encode("The quick brown fo")
    texts = [event.text for event in complete(model, tokenizer, ids, config) if isinstance(event, Completion)]
    for sample, text in enumerate(texts):
        (*_, alone) = complete(model, tokenizer, ids, config, samples=[sample])
        assert isinstance(alone, Completion)
        assert alone.text == text
        assert np.char.startswith(text, "x")
