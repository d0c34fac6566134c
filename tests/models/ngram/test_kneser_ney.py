"""Modified Kneser-Ney smoothing, compared with its definition written with dictionaries."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.config.model import ngram_config
from quickfox.models.ngram import counting, kneser_ney
from quickfox.models.ngram.kneser_ney import NgramEstimate, estimate_discounts, estimate_ngrams
from quickfox.models.ngram.model import NgramLanguageModel
from quickfox.models.ngram.tables import check_tables
from quickfox.models.parameters import TensorSpec, ngram_specs

UNLIMITED = 10**9
Ngram = tuple[int, ...]


class NaiveModel:
    """p(w | h) by the formulas, from all n-grams of a text."""

    def __init__(self, text: list[int], vocabulary_size: int, order: int) -> None:
        self.vocabulary_size = vocabulary_size
        self.order = order
        ngrams = Counter(tuple(text[i : i + k]) for k in range(1, order + 1) for i in range(len(text) - k + 1))
        start = vocabulary_size  # a token before the text
        before: dict[Ngram, set[int]] = {tuple(text[:k]): {start} for k in range(1, order)}
        for ngram in ngrams:
            before.setdefault(ngram[1:], set()).add(ngram[0])
        self.adjusted = {ngram: count if len(ngram) == order else len(before[ngram]) for ngram, count in ngrams.items()}
        self.discounts = {
            k: naive_discounts([a for ngram, a in self.adjusted.items() if len(ngram) == k])
            for k in range(1, order + 1)
        }

    def prob(self, token: int, context: Ngram) -> float:
        context = context[max(0, len(context) - self.order + 1) :]
        lower = self.prob(token, context[1:]) if context else 1 / self.vocabulary_size
        adjusted = {w: self.adjusted.get((*context, w), 0) for w in range(self.vocabulary_size)}
        total = sum(adjusted.values())
        if total == 0:
            return lower
        discount = {w: self.discounts[len(context) + 1][min(a, 3)] for w, a in adjusted.items()}
        gamma = sum(discount.values()) / total
        return (adjusted[token] - discount[token]) / total + gamma * lower


def naive_discounts(adjusted: list[int]) -> list[float]:
    """Of the adjusted counts 0, 1, 2, and 3 or more."""
    n1, n2, n3, n4 = (adjusted.count(k) for k in (1, 2, 3, 4))
    if 0 in (n1, n2, n3, n4):
        return [0.0, 0.5, 1.0, 1.5]
    y = n1 / (n1 + 2 * n2)
    discounts = [0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
    is_valid = all(0 <= discount <= k for k, discount in enumerate(discounts))
    return discounts if is_valid else [0.0, 0.5, 1.0, 1.5]


def zipf_text(length: int, vocabulary_size: int, seed: int = 0) -> np.ndarray:
    """Tokens with the frequencies of words, each followed by itself plus one, half of the time."""
    random = np.random.default_rng(seed)
    ids = np.minimum(random.zipf(1.3, length), vocabulary_size) - 1
    repeats = np.flatnonzero(random.random(length - 1) < 0.5)
    ids[repeats + 1] = (ids[repeats] + 1) % vocabulary_size
    return ids.astype(np.uint8)


def build_model(estimate: NgramEstimate) -> NgramLanguageModel:
    return NgramLanguageModel(ngram_config(estimate.ngrams[0], estimate.ngrams), estimate.tensors)


def mean_loss(estimate: NgramEstimate, ids: np.ndarray) -> float:
    """Nats per token of a text."""
    model = build_model(estimate)
    ids = ids.astype(np.int64)[None]
    probs, _ = model.target_probs(ids[:, :-1], ids[:, 1:], model.initial_state(1))
    return -float(np.log(probs).mean())


def assert_same_tables(first: NgramEstimate, second: NgramEstimate) -> None:
    assert (first.ngrams, first.min_counts) == (second.ngrams, second.min_counts)
    assert list(first.tensors) == list(second.tensors)
    for name, tensor in first.tensors.items():
        np.testing.assert_array_equal(tensor, second.tensors[name], strict=True)


def assert_valid(estimate: NgramEstimate) -> None:
    """The tensors are those of the schema, and consistent."""
    config = ngram_config(estimate.ngrams[0], estimate.ngrams)
    specs = {name: TensorSpec(tensor.shape, tensor.dtype) for name, tensor in estimate.tensors.items()}
    assert specs == ngram_specs(config)
    check_tables(config, estimate.tensors, "tables")


def assert_distributions(model: NgramLanguageModel, contexts: np.ndarray) -> np.ndarray:
    """The distributions after texts (B, T), (B, T, V), which must sum to 1."""
    probs, _ = model.probs(contexts, model.initial_state(len(contexts)))
    assert (probs > 0).all()
    np.testing.assert_allclose(probs.sum(axis=-1), 1, atol=1e-5)
    return probs


def assert_definition(text: list[int], vocabulary_size: int, order: int, contexts: list[list[int]]) -> None:
    """After each token of the text and of other texts, the probabilities are those of the definition."""
    naive = NaiveModel(text, vocabulary_size, order)
    estimate = estimate_ngrams(np.array(text, np.uint8), vocabulary_size, order, UNLIMITED)
    assert_valid(estimate)
    model = build_model(estimate)
    np.testing.assert_allclose(
        estimate.tensors["ngram.1.probs"], [naive.prob(w, ()) for w in range(vocabulary_size)], atol=1e-5
    )
    for tokens in (text, *contexts):
        probs = assert_distributions(model, np.array([tokens]))[0]
        expected = [
            [naive.prob(w, tuple(tokens[:end])) for w in range(vocabulary_size)] for end in range(1, len(tokens) + 1)
        ]
        np.testing.assert_allclose(probs, expected, atol=1e-5)


@st.composite
def texts(draw: st.DrawFn) -> tuple[list[int], int, list[list[int]]]:
    """A text, the size of its vocabulary, and two more texts."""
    vocabulary_size = draw(st.integers(1, 5))
    tokens = st.integers(0, vocabulary_size - 1)
    text = draw(st.lists(tokens, min_size=1, max_size=60))
    return text, vocabulary_size, draw(st.lists(st.lists(tokens, min_size=1, max_size=12), min_size=2, max_size=2))


@given(texts=texts(), order=st.integers(1, 5))
def test_any_text_as_defined(texts: tuple[list[int], int, list[list[int]]], order: int) -> None:
    text, vocabulary_size, contexts = texts
    assert_definition(text, vocabulary_size, order, contexts)


@pytest.mark.parametrize("order", [2, 4])
def test_a_text_with_estimated_discounts_as_defined(order: int) -> None:
    text = zipf_text(600, 12).tolist()
    assert NaiveModel(text, 12, order).discounts[order] != [0.0, 0.5, 1.0, 1.5]
    assert_definition(text, 12, order, [np.random.default_rng(1).integers(0, 12, 40).tolist()])


def test_bigrams_by_hand() -> None:
    # abab: ab twice, ba once; discounts 0.5, 1, 1.5. Before a: b and the start of the text; before b: a.
    model = build_model(estimate_ngrams(np.array([0, 1, 0, 1], np.uint8), 3, 2, UNLIMITED))
    probs, _ = model.probs(np.array([[0, 1, 2]]), model.initial_state(1))
    unigrams = np.array([(2 - 1) / 3, (1 - 0.5) / 3, 0]) + 1.5 / 3 / 3
    after_a = np.array([0, (2 - 1) / 2, 0]) + 1 / 2 * unigrams
    after_b = np.array([(1 - 0.5) / 1, 0, 0]) + 0.5 / 1 * unigrams
    np.testing.assert_allclose(probs[0], [after_a, after_b, unigrams], atol=1e-6)


def test_discounts_by_hand() -> None:
    # y = 4 / (4 + 2 * 2) = 1/2
    frequencies = np.array([7, 4, 2, 1, 1])
    assert estimate_discounts(frequencies).tolist() == [0, 1 - 2 / 4, 2 - 1.5 / 2, 3 - 2]


@pytest.mark.parametrize(
    "adjusted",
    [
        [],
        [1, 1, 2, 2, 3, 3],  # none with 4
        [1, 2, 2, 2, 3, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4],  # D_2 = 2 - 3 / 7 * 6 / 3, D_3 valid
        [1] * 9 + [2] + [3] * 9 + [4],  # D_2 = 2 - 27 * 9 / 11 is negative
    ],
)
def test_discounts_are_those_of_the_naive_definition(adjusted: list[int]) -> None:
    found = estimate_discounts(np.array([adjusted.count(k) for k in range(5)]))
    np.testing.assert_allclose(found, naive_discounts(adjusted))


@pytest.mark.parametrize("chunk_tokens", [1, 2, 7, 99, 100, 101])
@pytest.mark.parametrize("threads", [1, 3])
def test_tables_do_not_depend_on_chunks_and_threads(
    monkeypatch: pytest.MonkeyPatch, chunk_tokens: int, threads: int
) -> None:
    ids = zipf_text(100, 12)
    expected = [estimate_ngrams(ids, 12, 3, max_ngrams) for max_ngrams in (UNLIMITED, 20)]
    monkeypatch.setattr(counting, "CHUNK_TOKENS", chunk_tokens)
    assert_same_tables(estimate_ngrams(ids, 12, 3, UNLIMITED, threads), expected[0])
    assert_same_tables(estimate_ngrams(ids, 12, 3, 20, threads), expected[1])


def test_text_is_not_changed() -> None:
    ids = zipf_text(600, 12)
    ids.flags.writeable = False
    assert_same_tables(estimate_ngrams(ids, 12, 3, 50), estimate_ngrams(ids.astype(np.uint32), 12, 3, 50))


def occurrences(text: list[int], order: int) -> Counter[Ngram]:
    return Counter(tuple(text[i : i + order]) for i in range(len(text) - order + 1))


def test_all_ngrams_are_kept_up_to_the_maximum() -> None:
    ids = zipf_text(600, 12)
    counts = [len(occurrences(ids.tolist(), k)) for k in range(2, 5)]
    estimate = estimate_ngrams(ids, 12, 4, max(counts))
    assert estimate.ngrams == (12, *counts)
    assert max(estimate.min_counts) <= 1
    assert_same_tables(estimate, estimate_ngrams(ids, 12, 4, UNLIMITED))


def ngrams_in_tables(estimate: NgramEstimate, order: int) -> list[Ngram]:
    """The n-grams of one order."""
    if order == 1:
        return [(token,) for token in range(estimate.ngrams[0])]
    offsets, tokens = (estimate.tensors[f"ngram.{order}.{name}"].tolist() for name in ("offsets", "tokens"))
    contexts = enumerate(ngrams_in_tables(estimate, order - 1))
    return [(*context, token) for i, context in contexts for token in tokens[offsets[i] : offsets[i + 1]]]


@pytest.mark.parametrize("max_ngrams", [0, 1, 10, 60, 100, 200])
def test_the_rarest_ngrams_are_left_out(max_ngrams: int) -> None:
    ids = zipf_text(3000, 12)
    estimate = estimate_ngrams(ids, 12, 5, max_ngrams)
    assert_valid(estimate)
    assert max(estimate.ngrams[1:]) <= max_ngrams
    assert max(estimate.min_counts) > 1
    assert_distributions(build_model(estimate), np.random.default_rng(0).integers(0, 12, (3, 100)))
    assert_distributions(build_model(estimate), ids[None, :500].astype(np.int64))


@pytest.mark.parametrize("max_ngrams", [60, 100, 200])
def test_min_counts_say_which_ngrams_are_kept(max_ngrams: int) -> None:
    ids = zipf_text(3000, 12)
    estimate = estimate_ngrams(ids, 12, 5, max_ngrams)
    for k in range(2, 6):
        contexts = set(ngrams_in_tables(estimate, k - 1))
        counts = {ngram: count for ngram, count in occurrences(ids.tolist(), k).items() if ngram[:-1] in contexts}
        min_count = estimate.min_counts[k - 1]
        assert ngrams_in_tables(estimate, k) == sorted(ngram for ngram, count in counts.items() if count >= min_count)
        assert min_count == 1 or sum(count >= min_count - 1 for count in counts.values()) > max_ngrams


def test_probabilities_of_the_kept_ngrams_are_those_of_all_counts() -> None:
    ids = zipf_text(3000, 12)
    full, pruned = (estimate_ngrams(ids, 12, 3, max_ngrams) for max_ngrams in (UNLIMITED, 200))
    assert pruned.min_counts[1] <= 1 < pruned.min_counts[2]
    np.testing.assert_array_equal(pruned.tensors["ngram.2.probs"], full.tensors["ngram.2.probs"])
    expected, probs = (
        dict(zip(ngrams_in_tables(estimate, 3), estimate.tensors["ngram.3.probs"].tolist(), strict=True))
        for estimate in (full, pruned)
    )
    assert len(probs) == pruned.ngrams[2] > 0
    assert probs.items() < expected.items()


def test_pruning_costs_little() -> None:
    ids = zipf_text(6000, 30)
    train, test = ids[:5000], ids[5000:]
    full = estimate_ngrams(train, 30, 4, UNLIMITED)
    pruned = estimate_ngrams(train, 30, 4, max(full.ngrams) // 6)
    assert max(pruned.ngrams[1:]) <= max(full.ngrams) // 6
    assert mean_loss(pruned, test) < mean_loss(full, test) + 0.03
    assert mean_loss(estimate_ngrams(train, 30, 1, 0), test) > mean_loss(full, test) + 0.1, "the order matters"


@pytest.mark.parametrize("counting_factor", [1, 2, 1000])
@pytest.mark.parametrize("chunk_tokens", [50, 10_000])
def test_dropping_ngrams_while_counting_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, counting_factor: int, chunk_tokens: int
) -> None:
    ids = zipf_text(3000, 12)
    expected = estimate_ngrams(ids, 12, 5, 100)
    monkeypatch.setattr(kneser_ney, "COUNTING_FACTOR", counting_factor)
    monkeypatch.setattr(counting, "CHUNK_TOKENS", chunk_tokens)
    assert_same_tables(estimate_ngrams(ids, 12, 5, 100), expected)


@pytest.mark.parametrize(("text", "order"), [([0], 1), ([0], 3), ([1, 0], 6), ([0] * 50, 4), ([2] * 50, 3)])
@pytest.mark.parametrize("max_ngrams", [0, 1, UNLIMITED])
def test_short_and_uniform_texts(text: list[int], order: int, max_ngrams: int) -> None:
    vocabulary_size = max(text) + 1
    estimate = estimate_ngrams(np.array(text, np.uint8), vocabulary_size, order, max_ngrams)
    assert_valid(estimate)
    assert len(estimate.ngrams) == len(estimate.min_counts) == order
    assert_distributions(build_model(estimate), np.array([text * 2]))


def test_one_ngram_that_occurs_once() -> None:
    assert estimate_ngrams(np.array([1, 0], np.uint8), 2, 4, UNLIMITED).ngrams == (2, 1, 0, 0)
