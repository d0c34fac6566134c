"""What a text has copied from a corpus, against plain searches in short texts."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.evaluation import memorization as novelty
from quickfox.evaluation.memorization import Copy, CopyIndex, longest_copies
from quickfox.text.corpus import open_corpus

CORPUS = ["The quick brown fox ", "", "jumps over", " the lazy dog.\n", "Größe 🦊 狐"]

LETTERS = st.text("ab")
CHUNKS = st.lists(LETTERS | st.text("aé🦊", max_size=5))


def copies_too_much(corpus, before, piece, max_copy):
    """Whether a window of more than `max_copy` characters that ends inside of `piece` is in the corpus."""
    text = before + piece
    ends = range(max(len(before), max_copy) + 1, len(text) + 1)
    return any(text[end - max_copy - 1 : end] in corpus for end in ends)


def longest_copy(sample, corpus):
    """The longest stretch of `sample` in the corpus, of the longest that which comes first there."""
    for length in range(len(sample), 0, -1):
        stretches = {sample[start : start + length] for start in range(len(sample) - length + 1)}
        if places := [corpus.index(stretch) for stretch in stretches if stretch in corpus]:
            text = corpus[min(places) :][:length]
            return Copy(text, sample.index(text), min(places))
    return Copy("", 0, 0)


@pytest.mark.parametrize(
    ("before", "piece", "expected"),
    [
        ("the bro", "w", False),  # " brow" is five characters
        ("quick bro", "w", True),
        ("k bro", "w", True),
        ("bro", "w", False),  # shorter than a copy may be
        ("ck b", "lue", False),
        ("ck b", "rag", False),  # "ck br" is five characters
        ("ck br", "ag", False),
        ("", "fox j", False),
        ("", "a fox jay", True),  # in two chunks of the corpus
        ("fox jump", "", False),
        ("röße ", "🦊", True),
        ("", "", False),
    ],
)
def test_foreseeing_copies_of_more_than_five_characters(before, piece, expected):
    assert CopyIndex(CORPUS, max_copy=5).would_copy(before, piece) is expected


def test_nothing_at_all_may_be_copied():
    index = CopyIndex(["ab"], max_copy=0)
    assert index.would_copy("c", "a")
    assert not index.would_copy("a", "c")


@pytest.mark.parametrize("chunks", [[], [""], ["abc"], ["ab", "c"]])
def test_a_corpus_no_longer_than_a_copy_may_be_forbids_nothing(chunks):
    assert not CopyIndex(chunks, max_copy=3).would_copy("abc", "abcabc")


@given(CHUNKS, LETTERS, LETTERS, st.integers(0, 6), st.integers(1, 8))
def test_foreseen_are_all_copies_and_nothing_else(chunks, before, piece, max_copy, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(novelty, "_BLOCK", block)
        index = CopyIndex(chunks, max_copy)
    assert index.would_copy(before, piece) is copies_too_much("".join(chunks), before, piece, max_copy)


@pytest.mark.parametrize("max_copy", [0, 4, 30])
def test_a_text_that_avoids_what_is_foreseen_copies_no_more_than_it_may(max_copy):
    draw = random.Random(1)
    corpus = "".join(draw.choices("abc", k=300))
    index = CopyIndex([corpus], max_copy)
    text = corpus[:max_copy]
    for _ in range(200):
        allowed = [character for character in "abcd" if not index.would_copy(text, character)]
        text += allowed[0]
    (copy,) = longest_copies([text], [corpus])
    assert len(copy.text) <= max_copy


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        ("a quick brown cow", Copy(" quick brown ", 1, 3)),
        ("fox jumps", Copy("fox jumps", 0, 16)),
        ("THE LAZY DOG.", Copy("T", 0, 0)),
        ("die Größe 🦊!", Copy("Größe 🦊", 4, 45)),
        ("狐", Copy("狐", 0, 53)),
        ("XYZ", Copy("", 0, 0)),
        ("", Copy("", 0, 0)),
        ("".join(CORPUS), Copy("".join(CORPUS), 0, 0)),
        ("<" + "".join(CORPUS) + ">", Copy("".join(CORPUS), 1, 0)),
    ],
)
def test_the_longest_copy_by_hand(sample, expected):
    assert longest_copies([sample], CORPUS) == [expected]


def test_of_copies_as_long_the_first_in_the_corpus_is_given():
    assert longest_copies(["two.one.two.one"], ["one two one"]) == [Copy("one", 4, 0)]


def test_no_samples_and_no_corpus():
    assert longest_copies([], CORPUS) == []
    assert longest_copies(["a", ""], []) == [Copy("", 0, 0)] * 2


@given(CHUNKS, st.lists(LETTERS | st.text("abé🦊", max_size=6), max_size=4), st.integers(1, 8))
def test_each_sample_has_its_own_longest_copy_however_the_corpus_is_cut(chunks, samples, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(novelty, "_FIRST_BLOCK", block)
        patch.setattr(novelty, "_BLOCK", 2 * block)
        found = longest_copies(samples, chunks)
    assert found == [longest_copy(sample, "".join(chunks)) for sample in samples]


def test_a_long_corpus():
    draw = random.Random(2)
    corpus = "".join(draw.choices("abcdefgh ", k=700_000))
    places = [4_000, 262_100, 600_000]
    samples = [f"{corpus[place - 9 : place]}X{corpus[place : place + 150]}X{corpus[:30]}" for place in places]
    chunks = [corpus[start : start + 100_003] for start in range(0, len(corpus), 100_003)]
    assert longest_copies(samples, chunks) == [Copy(corpus[place : place + 150], 10, place) for place in places]


def thue_morse(length):
    return "".join("ab"[place.bit_count() % 2] for place in range(length))


def test_words_with_the_same_hash_are_no_copies_of_each_other():
    word = thue_morse(1024)
    opposite = word.translate(str.maketrans("ab", "ba"))
    assert CopyIndex([word], 1023).would_copy(opposite[:-1], opposite[-1])  # taken for a copy, as documented
    (copy,) = longest_copies([opposite], [word])
    assert len(copy.text) == 512  # the word's latter half is the opposite of its former
    assert word[copy.corpus_start :].startswith(copy.text)
    assert opposite[copy.sample_start :].startswith(copy.text)


def test_a_corpus_of_files(tmp_path: Path):
    (tmp_path / "a.txt").write_text("one fish, two ", encoding="utf-8")
    (tmp_path / "b.txt").write_text("fish", encoding="utf-8")
    corpus = open_corpus([str(tmp_path)], notice=pytest.fail)
    assert longest_copies(["red fish, two fish."], corpus.iter_text()) == [Copy(" fish, two fish", 3, 3)]
    assert CopyIndex(corpus.iter_text(chunk_bytes=3), max_copy=7).would_copy("no two fis", "h")
