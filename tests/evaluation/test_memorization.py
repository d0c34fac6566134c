"""Copies from a corpus, compared with plain substring searches in short texts."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.evaluation import memorization
from quickfox.evaluation.memorization import Copy, CopyIndex, longest_copies
from quickfox.text.corpus import open_corpus

CORPUS = ["The quick brown fox ", "", "jumps over", " the lazy dog.\n", "Größe 🦊 狐"]

LETTERS = st.text("ab")
CHUNKS = st.lists(LETTERS | st.text("aé🦊", max_size=5))


def naive_would_copy(corpus, text, token_text, max_copy):
    """Whether a substring of `max_copy` + 1 characters that ends in the token is in the corpus."""
    whole = text + token_text
    ends = range(max(len(text), max_copy) + 1, len(whole) + 1)
    return any(whole[end - max_copy - 1 : end] in corpus for end in ends)


def naive_longest_copy(sample, corpus):
    """The longest substring of `sample` in the corpus; of several, the first of the corpus."""
    for length in range(len(sample), 0, -1):
        substrings = {sample[start : start + length] for start in range(len(sample) - length + 1)}
        if indices := [corpus.index(substring) for substring in substrings if substring in corpus]:
            text = corpus[min(indices) :][:length]
            return Copy(text, sample.index(text), min(indices))
    return Copy("", 0, 0)


@pytest.mark.parametrize(
    ("text", "token_text", "expected"),
    [
        ("the bro", "w", False),  # " brow" is five characters
        ("quick bro", "w", True),
        ("k bro", "w", True),
        ("bro", "w", False),  # shorter than max_copy
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
def test_would_copy_more_than_five_characters(text, token_text, expected):
    assert CopyIndex(CORPUS, max_copy=5).would_copy(text, token_text) is expected


def test_max_copy_zero_allows_no_character_of_the_corpus():
    index = CopyIndex(["ab"], max_copy=0)
    assert index.would_copy("c", "a")
    assert not index.would_copy("a", "c")


@pytest.mark.parametrize("chunks", [[], [""], ["abc"], ["ab", "c"]])
def test_a_corpus_of_at_most_max_copy_characters_bans_no_token(chunks):
    assert not CopyIndex(chunks, max_copy=3).would_copy("abc", "abcabc")


@given(CHUNKS, LETTERS, LETTERS, st.integers(0, 6), st.integers(1, 8))
def test_would_copy_agrees_with_a_plain_search(chunks, text, token_text, max_copy, chunk_size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memorization, "_CHUNK", chunk_size)
        index = CopyIndex(chunks, max_copy)
    assert index.would_copy(text, token_text) is naive_would_copy("".join(chunks), text, token_text, max_copy)


@pytest.mark.parametrize("max_copy", [0, 4, 30])
def test_a_text_of_allowed_tokens_copies_at_most_max_copy(max_copy):
    generator = random.Random(1)
    corpus = "".join(generator.choices("abc", k=300))
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
def test_longest_copies_by_hand(sample, expected):
    assert longest_copies([sample], CORPUS) == [expected]


def test_of_equally_long_copies_the_first_in_the_corpus_is_returned():
    assert longest_copies(["two.one.two.one"], ["one two one"]) == [Copy("one", 4, 0)]


def test_no_samples_and_no_corpus():
    assert longest_copies([], CORPUS) == []
    assert longest_copies(["a", ""], []) == [Copy("", 0, 0)] * 2


@given(CHUNKS, st.lists(LETTERS | st.text("abé🦊", max_size=6), max_size=4), st.integers(1, 8))
def test_longest_copies_agree_with_a_plain_search(chunks, samples, chunk_size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memorization, "_FIRST_CHUNK", chunk_size)
        patch.setattr(memorization, "_CHUNK", 2 * chunk_size)
        found = longest_copies(samples, chunks)
    assert found == [naive_longest_copy(sample, "".join(chunks)) for sample in samples]


def test_a_corpus_of_several_chunks():
    generator = random.Random(2)
    corpus = "".join(generator.choices("abcdefgh ", k=700_000))
    starts = [4_000, 262_100, 600_000]
    samples = [f"{corpus[start - 9 : start]}X{corpus[start : start + 150]}X{corpus[:30]}" for start in starts]
    chunks = [corpus[start : start + 100_003] for start in range(0, len(corpus), 100_003)]
    assert longest_copies(samples, chunks) == [Copy(corpus[start : start + 150], 10, start) for start in starts]


def thue_morse(length):
    return "".join("ab"[index.bit_count() % 2] for index in range(length))


def test_colliding_hashes_are_not_reported_as_copies():
    word = thue_morse(1024)
    complement = word.translate(str.maketrans("ab", "ba"))
    assert CopyIndex([word], 1023).would_copy(complement[:-1], complement[-1])  # a collision, as documented
    (copy,) = longest_copies([complement], [word])
    assert len(copy.text) == 512  # the second half of the word is the complement of its first
    assert word[copy.corpus_start :].startswith(copy.text)
    assert complement[copy.sample_start :].startswith(copy.text)


def test_a_corpus_of_several_files(tmp_path: Path):
    (tmp_path / "a.txt").write_text("one fish, two\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("fish", encoding="utf-8")
    corpus = open_corpus([str(tmp_path)], notice=pytest.fail)
    assert longest_copies(["red fish, two\nfish."], corpus.iter_text()) == [Copy(" fish, two\nfish", 3, 3)]
    assert CopyIndex(corpus.iter_text(chunk_bytes=3), max_copy=7).would_copy("no two\nfis", "h")
