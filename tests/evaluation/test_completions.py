"""Measures of completions: recorded values of jiwer and sacrebleu, and both libraries where installed."""

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.evaluation.completions import (
    count_all_matches,
    edit_distance,
    generate_completions,
    measure,
)
from quickfox.text.documents import Document
from quickfox.text.vocabulary import Vocabulary
from quickfox.tokenizers.character import CharacterTokenizer
from toy_models import random_lstm

RECORDED = [
    # hypothesis, reference, jiwer 4.0.0 cer and wer, sacrebleu 2.6.0 chrF2
    ("the cat sat on the mat", "the cat sat on the mat", 0.0, 0.0, 100.0),
    ("the cat sat on mat", "the cat sat on the mat", 0.181818, 0.166667, 66.928572),
    ("Datei öffnen …", "Datei öffnen", 0.166667, 0.5, 97.614901),
    ("", "leer", 1.0, 1.0, 0.0),
    ("etwas", "", 5.0, 1.0, 0.0),
    ("a\tb  c", "a b c", 0.4, 2 / 3, 100.0),
    (" ab\n", "ab", 0.0, 0.0, 100.0),
]


def random_pairs() -> list[tuple[str, str]]:
    """1,000 pairs of texts with white space of several kinds; some empty, some equal, most alike."""
    generator = random.Random(1)
    characters = "ab cdé \t\n 日x"

    def text() -> str:
        return "".join(generator.choices(characters, k=generator.randrange(30)))

    def changed(reference: str) -> str:
        return "".join(generator.choice(characters) if generator.random() < 0.2 else each for each in reference)

    references = [text() for _ in range(1000)]
    return [(text() if generator.random() < 0.3 else changed(reference), reference) for reference in references]


def measured(*pairs: tuple[str, str]) -> dict[str, float]:
    return {name: float(value) for name, value in measure(count_all_matches(pairs).sum(axis=0)).items()}


@pytest.mark.parametrize(("hypothesis", "reference", "cer", "wer", "chrf"), RECORDED)
def test_measures_have_the_recorded_values(
    hypothesis: str, reference: str, cer: float, wer: float, chrf: float
) -> None:
    values = measured((hypothesis, reference))
    assert [values[name] for name in ("cer", "wer", "chrf")] == pytest.approx([cer, wer, chrf], abs=1e-6)
    assert values["exact_match"] == (hypothesis == reference)


def test_error_rates_are_those_of_jiwer() -> None:
    jiwer = pytest.importorskip("jiwer")
    for hypothesis, reference in random_pairs():
        values = measured((hypothesis, reference))
        assert values["cer"] == pytest.approx(jiwer.cer([reference], [hypothesis]))
        assert values["wer"] == pytest.approx(jiwer.wer([reference], [hypothesis]))
    hypotheses, references = map(list, zip(*random_pairs(), strict=True))
    values = measured(*random_pairs())
    assert values["cer"] == pytest.approx(jiwer.cer(references, hypotheses))
    assert values["wer"] == pytest.approx(jiwer.wer(references, hypotheses))


def test_chrf_is_that_of_sacrebleu() -> None:
    chrf = pytest.importorskip("sacrebleu").CHRF()
    for hypothesis, reference in random_pairs():
        expected = chrf.corpus_score([hypothesis], [[reference]]).score
        assert measured((hypothesis, reference))["chrf"] == pytest.approx(expected)
    hypotheses, references = map(list, zip(*random_pairs(), strict=True))
    assert measured(*random_pairs())["chrf"] == pytest.approx(chrf.corpus_score(hypotheses, [references]).score)


def test_measures_of_many_pairs_are_of_their_sums() -> None:
    values = measured(("ab", "ab"), ("x", "abcd"))
    assert (values["exact_match"], values["cer"], values["wer"]) == (0.5, 4 / 6, 0.5)


@given(st.text("abc", max_size=12), st.text("abc", max_size=12))
def test_the_edit_distance_is_that_of_dynamic_programming(first: str, second: str) -> None:
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, start=1):
        previous, row[0] = row[0], i
        for j, b in enumerate(second, start=1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (a != b))
    assert edit_distance(first, second) == row[-1]


def test_a_document_without_a_prompt_is_not_completed() -> None:
    tokenizer = CharacterTokenizer(Vocabulary(("a", "b"))).with_end_of_text()
    documents = [Document((("", False), ("ab", True))), Document((("a€", False), ("b", True)))]
    unknown: Counter[str] = Counter()
    ((hypothesis, reference),) = generate_completions(lambda _frames: random_lstm(3), tokenizer, documents, unknown)
    assert reference == "b"
    assert set(hypothesis) <= {"a", "b"}
    assert unknown == {"€": 1}


def test_no_pairs_have_no_counts() -> None:
    assert count_all_matches([]).shape == np.zeros((0, 24)).shape
