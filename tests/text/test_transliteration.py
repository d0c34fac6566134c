"""Folding characters that a model does not know into such that it knows."""

import string
import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.text.transliteration import describe_folding, fold

ASCII = frozenset(string.printable[:95] + "\n")

CURIOUS = "aeESs éÉ\u0301\u0323ßẞﬁǆ½´¨“”\"'’–—…\r\n\t\u00a0\u2028が\u3099ｶﾞᄒ\u1161ᆫ한，。！(øŒıK🦊\u0f73א\u05b8\u0345"
"""What has several forms, cases or look-alikes, or none."""

TEXTS = st.text() | st.text(CURIOUS)
KNOWN = st.frozensets(st.characters()) | st.frozensets(st.sampled_from(CURIOUS)) | st.just(ASCII)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It’s “so” ‘it’ seems", "It's \"so\" 'it' seems"),
        ("one – two—three − four‑five", "one - two--three - four-five"),
        ("wait…", "wait..."),
        ("a\u00a0b\u2003c\u3000d\u1680e\tf", "a b c d e f"),
        ("a\r\nb\rc\u2028d\u2029e\x85f", "a\nb\nc\nd\ne\nf"),
        ("• one\n‣ two", "* one\n* two"),
        ("«guillemets» ‹single›", "\"guillemets\" 'single'"),
        ("ＡＢｃ！～", "ABc!~"),
        ("6′ 2″ 5×3 1⁄2 ½", "6' 2\" 5x3 1/2 1/2"),
        ("ÀÉîõü Ångström", "AEiou Angstrom"),
        ("ﬁne oﬃce №5 ™", "fine office No5 TM"),
        ("Łódź, smørrebrød, đ, cœur", "Lodz, smorrebrod, d, coeur"),
        ("Straße, ẞ, ﬅ", "Strasse, ss, st"),
        ("a´ b`", "a' b`"),
    ],
)
def test_an_english_model_of_plain_characters(text, expected):
    assert fold(text, ASCII).text == expected


def test_case():
    assert fold("Hello, ÉTÉ!", frozenset("abcdefghijklmnopqrstuvwxyz ,!")).text == "hello, ete!"
    assert fold("hello", frozenset("HELO")).text == "HELLO"
    assert fold("ß ǆ", frozenset("S Dž")).text == "SS Dž"


def test_the_letter_without_its_marks_comes_before_the_other_case():
    assert fold("É", frozenset("Eé")).text == "E"
    assert fold("É", frozenset("eé")).text == "é"


def test_composed_and_decomposed():
    assert fold("cafe\u0301", frozenset("cafeé")).text == "café"
    assert fold("café", frozenset("cafe\u0301")).text == "cafe\u0301"
    assert fold("\u1112\u1161\u11ab", frozenset("한")).text == "한"
    assert fold("ｶﾞ", frozenset("ガ")).text == "ガ"


def test_known_sequences_are_left_as_they_are():
    known = frozenset("eé\u0301\r\n’")
    assert fold("e\u0301é\r\n’", known).text == "e\u0301é\r\n’"


def test_a_model_of_typographic_text_reads_straight_quotes():
    assert fold("\"Oh,\" he said ('it' can't).", frozenset("“”‘’Oh, esaidtcn().")).text == "“Oh,” he said (‘it’ can’t)."
    assert fold('"Oh," x', frozenset("«»Oh, x")).text == "«Oh,» x"


def test_a_model_of_chinese_reads_plain_punctuation():
    assert fold("天,地.(好!)", frozenset("天地好，。（）！")).text == "天，地。（好！）"


def test_line_ends_where_there_are_none_are_spaces():
    assert fold("a\r\nb\nc", frozenset("abc ")).text == "a b c"
    assert fold("a\r\nb\nc", frozenset("abc\r")).text == "a\rb\rc"


def test_what_is_like_nothing_known_stays_for_others_to_leave_out():
    folded = fold("a🦊 b日", ASCII)
    assert folded.text == "a🦊 b日"
    assert folded.replaced == Counter()


def test_an_accent_by_itself_is_no_space():
    assert fold("a¨", frozenset("a ")).text == "a¨"


def test_replacements_are_counted():
    folded = fold("’tis Élan’s e\u0301t’", ASCII)
    assert folded.text == "'tis Elan's et'"
    assert folded.replaced == Counter({("’", "'"): 3, ("É", "E"): 1, ("e\u0301", "e"): 1})


def test_more_marks_than_any_text_has_take_no_time():
    assert fold("a" + "\u0323\u0301" * 50_000, ASCII).text.startswith("a")


def test_replacements_named_for_a_message():
    assert describe_folding(fold("’É’’", ASCII).replaced) == "'’' by \"'\" (3), 'É' by 'E'"
    assert describe_folding(fold("é\u2028", ASCII).replaced, limit=1) == "'é' by 'e' and others"
    assert describe_folding(fold("e\u0301", frozenset("é")).replaced) == "'e\\u0301' by '\\xe9'"


@given(TEXTS, KNOWN)
def test_what_is_known_is_left_alone(text, known):
    known_text = "".join(character for character in text if character in known)
    assert fold(known_text, known).text == known_text
    assert fold(text, frozenset(text)).replaced == Counter()


@given(st.text(st.characters(exclude_categories=("M", "Cs"))), KNOWN)
def test_known_characters_stay_in_their_order(text, known):
    remaining = iter(fold(text, known).text)
    # Letters of Hangul syllables and Japanese voicing combine without being marks, so NFC may change those.
    if unicodedata.is_normalized("NFKC", text):
        assert all(character in remaining for character in text if character in known)


@given(TEXTS, KNOWN)
def test_everything_is_replaced_by_what_is_known(text, known):
    for cluster, spelling in fold(text, known).replaced:
        assert not known.issuperset(cluster)
        assert spelling
        assert known.issuperset(spelling)


@given(TEXTS, KNOWN)
def test_folding_again_changes_nothing(text, known):
    folded = fold(text, known)
    again = fold(folded.text, known)
    assert again.text == folded.text
    assert again.replaced == Counter()


@given(TEXTS, KNOWN)
def test_only_what_is_unknown_stays_or_goes(text, known):
    folded = fold(text, known)
    assert folded.replaced.total() <= sum(character not in known for character in text)
    assert {c for c in folded.text if c not in known} <= {c for c in text if c not in known}


@given(TEXTS, KNOWN)
def test_a_description_is_one_line(text, known):
    description = describe_folding(fold(text, known).replaced, limit=100)
    assert len(description.splitlines()) <= 1
    description.encode("utf-8")
