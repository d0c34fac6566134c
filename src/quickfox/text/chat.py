"""Conversations as text: how the turns of a chat are written, in training as in generation.

    <|user|>
    What is the capital of France?<|end|>
    <|assistant|>
    Paris.<|end|>

A model learns what the assistant writes and the end of its turn; it reads the rest. To answer, it continues
`prompt_parts` up to `END_OF_TURN`. Independent of files and tokens.
"""

import re
from collections.abc import Sequence
from typing import Any

from quickfox.errors import DataError
from quickfox.text.documents import Document, Part

END_OF_TURN = "<|end|>"

ASSISTANT = "assistant"

_ROLE = re.compile(r"[A-Za-z_]{1,32}")
_MARKER = re.compile(r"<\|[A-Za-z_]{1,32}\|>")


def parse_conversation(messages: Any, where: str) -> Document:
    """The document of a conversation: each turn of the assistant is learned, the rest is read.

    Args:
        messages: decoded JSON: a list of objects with the strings `role` and `content`.
        where: begins error messages.

    Raises:
        DataError: the messages are not as described, none of them is the assistant's, or one has a marker of turns.
    """
    parts = _render(parse_messages(messages, where))
    if not any(is_learned for _, is_learned in parts):
        raise DataError(f"{where}: no message of the role {ASSISTANT!r}, which is what a model learns")
    return Document(tuple(part for part in parts if part[0]))


def prompt_parts(messages: Sequence[tuple[str, str]]) -> list[str]:
    """The text that a model continues with the assistant's answer, in parts over whose borders no token extends.

    Args:
        messages: pairs of role and content, as `parse_messages` returns them.
    """
    *parts, (text, _) = _render(messages)
    return [*(text for text, _ in parts), f"{text}\n{_start_turn(ASSISTANT)}"]


def _render(messages: Sequence[tuple[str, str]]) -> list[Part]:
    """The parts of a conversation: those read and those learned take turns, beginning and ending with one read."""
    parts: list[Part] = []
    text = ""
    for number, (role, content) in enumerate(messages):
        text += ("\n" if number else "") + _start_turn(role)
        if role == ASSISTANT:
            parts += [(text, False), (content + END_OF_TURN, True)]
            text = ""
        else:
            text += content + END_OF_TURN
    return [*parts, (text, False)]


def parse_messages(messages: Any, where: str) -> list[tuple[str, str]]:
    """The role and content of each message of decoded JSON.

    The content may be a list of parts of the type text, as in OpenAI's format.

    Raises:
        DataError: the messages are not as described, or one has a marker of turns; begins with `where`.
    """
    if not isinstance(messages, list) or not messages:
        raise DataError(f"{where}: 'messages' must be a list of objects with 'role' and 'content'")
    return [_parse_message(message, f"{where}, message {number}") for number, message in enumerate(messages, start=1)]


def _parse_message(message: Any, where: str) -> tuple[str, str]:
    if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
        raise DataError(f"{where}: expected an object with 'role' and 'content'")
    role, content = message["role"], message["content"]
    if not isinstance(role, str) or not _ROLE.fullmatch(role):
        raise DataError(f"{where}: 'role' must be a word such as user or assistant")
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict) and part.get("type") == "text"]
        texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
        if len(texts) == len(content):
            content = "".join(texts)
    if not isinstance(content, str):
        raise DataError(f"{where}: 'content' must be a string")
    if marker := _MARKER.search(content):
        raise DataError(f"{where}: the content has {marker[0]!r}, which marks turns: remove it")
    return role, content


def _start_turn(role: str) -> str:
    return f"<|{role}|>\n"
