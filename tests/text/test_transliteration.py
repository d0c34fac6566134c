"""Transliteration of characters outside of a vocabulary."""

import string
import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.text.transliteration import describe_transliteration, transliterate

ASCII = frozenset(string.printable[:95] + "\n")

DIFFICULT = "aeESs éÉ\u0301\u0323ßẞﬁǆ½´¨“”\"'’–—…\r\n\t\u00a0\u2028が\u3099ｶﾞᄒ\u1161ᆫ한，。！(øŒıK🦊\u0f73א\u05b8\u0345"
"""Characters with several forms, cases or look-alikes, or with none."""

TEXTS = st.text() | st.text(DIFFICULT)
KNOWN = st.frozensets(st.characters()) | st.frozensets(st.sampled_from(DIFFICULT)) | st.just(ASCII)


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
def test_transliterate_to_ascii(text, expected):
    assert transliterate(text, ASCII)[0] == expected


def test_case():
    assert transliterate("Hello, ÉTÉ!", frozenset("abcdefghijklmnopqrstuvwxyz ,!"))[0] == "hello, ete!"
    assert transliterate("hello", frozenset("HELO"))[0] == "HELLO"
    assert transliterate("ß ǆ", frozenset("S Dž"))[0] == "SS Dž"


def test_removing_marks_has_priority_over_changing_case():
    assert transliterate("É", frozenset("Eé"))[0] == "E"
    assert transliterate("É", frozenset("eé"))[0] == "é"


def test_composed_and_decomposed():
    assert transliterate("cafe\u0301", frozenset("cafeé"))[0] == "café"
    assert transliterate("café", frozenset("cafe\u0301"))[0] == "cafe\u0301"
    assert transliterate("\u1112\u1161\u11ab", frozenset("한"))[0] == "한"
    assert transliterate("ｶﾞ", frozenset("ガ"))[0] == "ガ"


def test_known_sequences_are_unchanged():
    known = frozenset("eé\u0301\r\n’")
    assert transliterate("e\u0301é\r\n’", known)[0] == "e\u0301é\r\n’"


def test_straight_quotes_to_typographic_quotes():
    assert (
        transliterate("\"Oh,\" he said ('it' can't).", frozenset("“”‘’Oh, esaidtcn()."))[0]
        == "“Oh,” he said (‘it’ can’t)."
    )
    assert transliterate('"Oh," x', frozenset("«»Oh, x"))[0] == "«Oh,» x"


def test_ascii_punctuation_to_fullwidth():
    assert transliterate("天,地.(好!)", frozenset("天地好，。（）！"))[0] == "天，地。（好！）"


def test_line_ends_to_spaces():
    assert transliterate("a\r\nb\nc", frozenset("abc "))[0] == "a b c"
    assert transliterate("a\r\nb\nc", frozenset("abc\r"))[0] == "a\rb\rc"


def test_characters_without_a_replacement_are_unchanged():
    assert transliterate("a🦊 b日", ASCII) == ("a🦊 b日", Counter())


def test_an_isolated_accent_is_not_replaced_by_a_space():
    assert transliterate("a¨", frozenset("a "))[0] == "a¨"


def test_replacements_are_counted():
    transliterated, replaced = transliterate("’tis Élan’s e\u0301t’", ASCII)
    assert transliterated == "'tis Elan's et'"
    assert replaced == Counter({("’", "'"): 3, ("É", "E"): 1, ("e\u0301", "e"): 1})


def test_excessive_combining_marks_take_linear_time():
    assert transliterate("a" + "\u0323\u0301" * 50_000, ASCII)[0].startswith("a")


def test_describe_transliteration():
    assert describe_transliteration(transliterate("’É’’", ASCII)[1]) == "'’' by \"'\" (3), 'É' by 'E'"
    assert describe_transliteration(transliterate("é\u2028", ASCII)[1], limit=1) == "'é' by 'e' and others"
    assert describe_transliteration(transliterate("e\u0301", frozenset("é"))[1]) == "'e\\u0301' by '\\xe9'"


@given(TEXTS, KNOWN)
def test_known_text_is_unchanged(text, known):
    known_text = "".join(character for character in text if character in known)
    assert transliterate(known_text, known)[0] == known_text
    assert transliterate(text, frozenset(text))[1] == Counter()


@given(st.text(st.characters(exclude_categories=("M", "Cs"))), KNOWN)
def test_known_characters_keep_their_order(text, known):
    remaining = iter(transliterate(text, known)[0])
    # Letters of Hangul syllables and Japanese voicing combine without being marks, so NFC may change those.
    if unicodedata.is_normalized("NFKC", text):
        assert all(character in remaining for character in text if character in known)


@given(TEXTS, KNOWN)
def test_replacements_are_known_characters(text, known):
    for cluster, spelling in transliterate(text, known)[1]:
        assert not known.issuperset(cluster)
        assert spelling
        assert known.issuperset(spelling)


@given(TEXTS, KNOWN)
def test_transliteration_is_idempotent(text, known):
    transliterated, _ = transliterate(text, known)
    assert transliterate(transliterated, known) == (transliterated, Counter())


@given(TEXTS, KNOWN)
def test_only_unknown_characters_are_replaced(text, known):
    transliterated, replaced = transliterate(text, known)
    assert replaced.total() <= sum(character not in known for character in text)
    assert {c for c in transliterated if c not in known} <= {c for c in text if c not in known}


@given(TEXTS, KNOWN)
def test_a_description_is_one_line(text, known):
    description = describe_transliteration(transliterate(text, known)[1], limit=100)
    assert len(description.splitlines()) <= 1
    description.encode("utf-8")
