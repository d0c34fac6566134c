"""From a prompt to finished texts, on models that are simple enough to know what must come out."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest

import quickfox.generation.completion
from quickfox.config.sampling import SamplingConfig
from quickfox.errors import DataError, UsageError
from quickfox.generation.completion import MAX_ROWS, complete
from quickfox.generation.stopping import Completion, Token
from quickfox.models.state import State
from quickfox.text.vocabulary import Vocabulary
from quickfox.tokenizers.character import CharacterTokenizer

TOKENIZER = CharacterTokenizer(Vocabulary(tuple("abcd")))


class Chain:
    """What follows depends on the last character alone, by the logits of its row; its state is nothing."""

    context = None

    def __init__(self, logits: Sequence[Sequence[float]]) -> None:
        self.logits = np.array(logits, np.float32)

    def initial_state(self, batch_size: int) -> State:
        return ()

    def forward(self, token_ids: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        return self.logits[token_ids], state


ROUND = Chain(100 * np.roll(np.eye(4), 1, axis=1))  # a b c d a b ...
EVEN = Chain(np.zeros((4, 4)))
SKEW = Chain(np.log([[0.1, 0.5, 0.3, 0.1], [0.6, 0.1, 0.2, 0.1], [0.05, 0.05, 0.05, 0.85], [0.25, 0.25, 0.25, 0.25]]))


def completions(model: Chain, **settings: object) -> list[Completion]:
    events = complete(model, TOKENIZER, [0], SamplingConfig(**settings))  # type: ignore[arg-type]
    return [event for event in events if isinstance(event, Completion)]


def test_a_text_is_told_of_token_by_token_and_then_complete() -> None:
    *tokens, completion = complete(ROUND, TOKENIZER, [0], SamplingConfig(length=5))
    assert all(isinstance(token, Token) for token in tokens)
    assert isinstance(completion, Completion)
    assert completion.text == "bcdab"
    assert list(completion.tokens) == tokens
    assert (completion.sample, completion.token_count, completion.finish_reason) == (0, 5, "length")


def test_samples_come_one_after_the_other_and_each_as_it_would_alone() -> None:
    count = MAX_ROWS + 3
    config = SamplingConfig(length=6, num_samples=count, random_seed=4, stop=("aa",))
    events = list(complete(EVEN, TOKENIZER, [0], config))
    assert [event.text for event in events if isinstance(event, Token)] == [
        token.text for event in events if isinstance(event, Completion) for token in event.tokens
    ]
    ends = [event for event in events if isinstance(event, Completion)]
    assert [end.sample for end in ends] == list(range(count))
    for end in ends[:5] + ends[-5:]:
        *_, alone = complete(EVEN, TOKENIZER, [0], config, samples=[end.sample])
        assert alone == end
    assert {end.finish_reason for end in ends} == {"stop", "length"}


def test_a_stop_string_of_several_tokens() -> None:
    (completion,) = completions(ROUND, length=50, stop=("ab", "dabc"))
    assert (completion.text, completion.finish_reason, completion.token_count) == ("bcd", "stop", 5)


def test_length_zero_is_an_empty_text() -> None:
    assert [(end.text, end.finish_reason) for end in completions(ROUND, length=0, num_samples=2)] == [
        ("", "length")
    ] * 2


def test_time_ends_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0.0, 1.0)
    monkeypatch.setattr(quickfox.generation.completion.time, "monotonic", lambda: next(clock))
    (completion,) = completions(ROUND, length=100, max_seconds=3.0)
    assert (completion.text, completion.finish_reason) == ("bcd", "time")


def test_log_probabilities_are_the_models_own() -> None:
    (completion,) = completions(SKEW, length=3, temperature=0, logprobs=2)
    assert completion.text == "bab"
    assert completion.logprob == pytest.approx(math.log(0.5 * 0.6 * 0.5))
    first = completion.tokens[0]
    assert first.logprob == pytest.approx(math.log(0.5))
    assert [text for text, _ in first.alternatives] == ["b", "c"]
    assert [logprob for _, logprob in first.alternatives] == pytest.approx([math.log(0.5), math.log(0.3)])


def test_the_best_of_many_are_given_the_best_first() -> None:
    many = completions(SKEW, length=4, num_samples=20, logprobs=0, random_seed=1)
    best = completions(SKEW, length=4, num_samples=3, best_of=20, random_seed=1)
    expected = sorted((end.logprob for end in many if end.logprob is not None), reverse=True)[:3]
    assert [end.logprob for end in best] == pytest.approx(expected)


@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_a_wide_beam_finds_the_most_probable_text(length: int) -> None:
    probabilities = np.exp(SKEW.logits.astype(np.float64))

    def probability(text: tuple[int, ...]) -> float:
        return math.prod(probabilities[before, after] for before, after in itertools.pairwise((0, *text)))

    best = max(itertools.product(range(4), repeat=length), key=probability)
    (found,) = completions(SKEW, length=length, num_beams=256, logprobs=0)
    assert found.text == TOKENIZER.decode(best)
    assert found.logprob == pytest.approx(math.log(probability(best)))


@pytest.mark.parametrize("settings", [{}, {"num_beams": 3, "logprobs": 1}])
def test_no_tokens_are_a_text_that_ends_by_its_length(settings: dict[str, int]) -> None:
    (found,) = completions(SKEW, length=0, **settings)
    assert (found.text, found.token_count, found.finish_reason) == ("", 0, "length")


@pytest.mark.parametrize("num_beams", [1, 3])
def test_where_no_token_is_allowed_a_text_ends(num_beams: int) -> None:
    found = completions(ROUND, length=9, no_repeat_ngram=1, num_beams=num_beams)[0]
    assert sorted(found.text) == ["b", "c", "d"]
    assert found.finish_reason == "nothing_allowed"


@pytest.mark.parametrize("settings", [{}, {"temperature": 0}, {"num_beams": 2}])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_an_error(settings: dict[str, int], value: float) -> None:
    with pytest.raises(DataError, match="not a number"), np.errstate(invalid="ignore"):
        completions(Chain(np.full((4, 4), value)), **settings)


def test_beams_end_with_stop_strings_and_come_the_best_first() -> None:
    found = completions(SKEW, length=6, num_beams=8, num_samples=4, stop=("d",), logprobs=0)
    assert "c" in {end.text for end in found if end.finish_reason == "stop"}, "then d, with a probability of 0.85"
    assert all("d" not in end.text for end in found)
    assert [end.mean_logprob for end in found] == sorted((end.mean_logprob for end in found), reverse=True)


def test_a_veto_makes_another_token_be_drawn() -> None:
    config = SamplingConfig(length=30, num_samples=3, random_seed=2)
    events = complete(EVEN, TOKENIZER, [0], config, veto=lambda written, piece: (written + piece).endswith(("a", "bc")))
    texts = [event.text for event in events if isinstance(event, Completion)]
    assert all(len(text) == 30 and "a" not in text and "bc" not in text for text in texts)


def test_a_text_ends_where_nothing_is_allowed() -> None:
    config = SamplingConfig(length=30, temperature=0)
    *_, end = complete(ROUND, TOKENIZER, [0], config, veto=lambda written, piece: len(written) == 4)
    assert isinstance(end, Completion)
    assert (end.text, end.finish_reason) == ("bcda", "nothing_allowed")
    assert completions(EVEN, length=3, logit_bias=tuple((c, -math.inf) for c in "abcd"))[0].text == ""


def test_a_search_has_no_veto() -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        list(complete(EVEN, TOKENIZER, [0], SamplingConfig(num_beams=2), veto=lambda written, piece: False))


def test_no_ngram_comes_twice() -> None:
    (completion,) = completions(EVEN, length=16, no_repeat_ngram=2, random_seed=3)
    pairs = list(itertools.pairwise("a" + completion.text))
    assert len(set(pairs)) == len(pairs)
