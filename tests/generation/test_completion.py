"""Completions of models simple enough to predict the text."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest

import quickfox.generation.completion
from quickfox.config.sampling import SamplingConfig
from quickfox.errors import DataError
from quickfox.generation.completion import MAX_BATCH_SIZE, complete
from quickfox.generation.stopping import Completion, Token
from quickfox.models.language_model import State
from quickfox.text.vocabulary import Vocabulary
from quickfox.tokenizers.character import CharacterTokenizer

TOKENIZER = CharacterTokenizer(Vocabulary(tuple("abcd")))


class MarkovChain:
    """The logits depend only on the last token: (V, V), a row per token. The state is empty."""

    context = None

    def __init__(self, logits: Sequence[Sequence[float]]) -> None:
        self.logits = np.array(logits, np.float32)

    def initial_state(self, batch_size: int) -> State:
        return ()

    def forward(self, token_ids: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        return self.logits[token_ids], state


CYCLE = MarkovChain(100 * np.roll(np.eye(4), 1, axis=1))  # a b c d a b ...
UNIFORM = MarkovChain(np.zeros((4, 4)))
SKEWED = MarkovChain(
    np.log([[0.1, 0.5, 0.3, 0.1], [0.6, 0.1, 0.2, 0.1], [0.05, 0.05, 0.05, 0.85], [0.25, 0.25, 0.25, 0.25]])
)


def completions(model: MarkovChain, **settings: object) -> list[Completion]:
    events = complete(model, TOKENIZER, [0], SamplingConfig(**settings))  # type: ignore[arg-type]
    return [event for event in events if isinstance(event, Completion)]


def test_tokens_are_yielded_before_their_completion() -> None:
    *tokens, completion = complete(CYCLE, TOKENIZER, [0], SamplingConfig(length=5))
    assert all(isinstance(token, Token) for token in tokens)
    assert isinstance(completion, Completion)
    assert completion.text == "bcdab"
    assert list(completion.tokens) == tokens
    assert (completion.sample, completion.token_count, completion.finish_reason) == (0, 5, "length")


def test_samples_are_yielded_in_order_and_equal_those_generated_singly() -> None:
    count = MAX_BATCH_SIZE + 3
    config = SamplingConfig(length=6, num_samples=count, random_seed=4, stop=("aa",))
    events = list(complete(UNIFORM, TOKENIZER, [0], config))
    assert [event.text for event in events if isinstance(event, Token)] == [
        token.text for event in events if isinstance(event, Completion) for token in event.tokens
    ]
    ends = [event for event in events if isinstance(event, Completion)]
    assert [end.sample for end in ends] == list(range(count))
    for end in ends[:5] + ends[-5:]:
        *_, single = complete(UNIFORM, TOKENIZER, [0], config, samples=[end.sample])
        assert single == end
    assert {end.finish_reason for end in ends} == {"stop", "length"}


def test_a_stop_string_of_several_tokens_ends_the_text() -> None:
    (completion,) = completions(CYCLE, length=50, stop=("ab", "dabc"))
    assert (completion.text, completion.finish_reason, completion.token_count) == ("bcd", "stop", 5)


def test_length_zero_gives_an_empty_text() -> None:
    assert [(end.text, end.finish_reason) for end in completions(CYCLE, length=0, num_samples=2)] == [
        ("", "length")
    ] * 2


def test_the_time_limit_ends_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0.0, 1.0)
    monkeypatch.setattr(quickfox.generation.completion.time, "monotonic", lambda: next(clock))
    (completion,) = completions(CYCLE, length=100, max_seconds=3.0)
    assert (completion.text, completion.finish_reason) == ("bcd", "time")


def test_log_probabilities_are_those_of_the_model_without_processors() -> None:
    (completion,) = completions(SKEWED, length=3, temperature=0, logprobs=2)
    assert completion.text == "bab"
    assert completion.logprob == pytest.approx(math.log(0.5 * 0.6 * 0.5))
    first = completion.tokens[0]
    assert first.logprob == pytest.approx(math.log(0.5))
    assert [text for text, _ in first.alternatives] == ["b", "c"]
    assert [logprob for _, logprob in first.alternatives] == pytest.approx([math.log(0.5), math.log(0.3)])


def test_best_of_returns_the_most_probable_samples_the_best_first() -> None:
    many = completions(SKEWED, length=4, num_samples=20, logprobs=0, random_seed=1)
    best = completions(SKEWED, length=4, num_samples=3, best_of=20, random_seed=1)
    expected = sorted((end.logprob for end in many if end.logprob is not None), reverse=True)[:3]
    assert [end.logprob for end in best] == pytest.approx(expected)


@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_a_wide_beam_search_finds_the_most_probable_text(length: int) -> None:
    probabilities = np.exp(SKEWED.logits.astype(np.float64))

    def probability(text: tuple[int, ...]) -> float:
        return math.prod(probabilities[before, after] for before, after in itertools.pairwise((0, *text)))

    best = max(itertools.product(range(4), repeat=length), key=probability)
    (found,) = completions(SKEWED, length=length, num_beams=256, logprobs=0)
    assert found.text == TOKENIZER.decode(best)
    assert found.logprob == pytest.approx(math.log(probability(best)))


@pytest.mark.parametrize("settings", [{}, {"num_beams": 3, "logprobs": 1}])
def test_length_zero_finishes_by_length(settings: dict[str, int]) -> None:
    (found,) = completions(SKEWED, length=0, **settings)
    assert (found.text, found.token_count, found.finish_reason) == ("", 0, "length")


@pytest.mark.parametrize("num_beams", [1, 3])
def test_a_text_ends_where_every_token_is_banned(num_beams: int) -> None:
    found = completions(CYCLE, length=9, no_repeat_ngram=1, num_beams=num_beams)[0]
    assert sorted(found.text) == ["b", "c", "d"]
    assert found.finish_reason == "nothing_allowed"


@pytest.mark.parametrize("settings", [{}, {"temperature": 0}, {"num_beams": 2}])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_non_finite_logits_are_an_error(settings: dict[str, int], value: float) -> None:
    with pytest.raises(DataError, match="not a number"), np.errstate(invalid="ignore"):
        completions(MarkovChain(np.full((4, 4), value)), **settings)


def test_beam_search_ends_at_stop_strings_and_returns_the_best_first() -> None:
    found = completions(SKEWED, length=6, num_beams=8, num_samples=4, stop=("d",), logprobs=0)
    assert "c" in {end.text for end in found if end.finish_reason == "stop"}, "d is next with a probability of 0.85"
    assert all("d" not in end.text for end in found)
    assert [end.mean_logprob for end in found] == sorted((end.mean_logprob for end in found), reverse=True)


def test_banned_tokens_are_sampled_again() -> None:
    config = SamplingConfig(length=30, num_samples=3, random_seed=2)
    events = complete(
        UNIFORM, TOKENIZER, [0], config, is_banned=lambda last, token: (last(1) + token).endswith(("a", "bc"))
    )
    texts = [event.text for event in events if isinstance(event, Completion)]
    assert all(len(text) == 30 and "a" not in text and "bc" not in text for text in texts)


def test_a_text_ends_where_the_filter_bans_every_token() -> None:
    config = SamplingConfig(length=30, temperature=0)
    *_, end = complete(CYCLE, TOKENIZER, [0], config, is_banned=lambda last, token: len(last(9)) == 4)
    assert isinstance(end, Completion)
    assert (end.text, end.finish_reason) == ("bcda", "nothing_allowed")
    assert completions(UNIFORM, length=3, logit_bias=tuple((c, -math.inf) for c in "abcd"))[0].text == ""


def test_no_ngram_occurs_twice() -> None:
    (completion,) = completions(UNIFORM, length=16, no_repeat_ngram=2, random_seed=3)
    pairs = list(itertools.pairwise("a" + completion.text))
    assert len(set(pairs)) == len(pairs)
