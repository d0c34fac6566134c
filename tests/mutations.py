"""Mutations of the content of files, and a trial of a reader on many of them.

The same random seed gives the same inputs. The readers are in file_readers.py and text_readers.py.
"""

import random
import re
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

from quickfox.errors import QuickfoxError

HOSTILE_VALUES = (
    b"-1", b"0", b"1e999", b"-0.0", b"0.5", b"NaN", b"-Infinity", b"true", b"null", b"[]", b"{}", b'""',
    b"9223372036854775808", b"18446744073709551616", b"9" * 400, b"9" * 5000, b"1" + b"0" * 307, b"1e-320",
    b'"\\u0000"', b'"\\ud800"', b'"\xed\xa0\x80"', b'"../../../etc/passwd"', b'"/etc/passwd"',
    b'"' + b"a" * 3000 + b'"',
    b"[" * 40 + b"]" * 40, b'{"a":' * 40 + b"1" + b"}" * 40, b"[" * 5000, b"[0, 4611686018427387904]",
    b"[" + b",".join([b"1"] * 100) + b"]", b'{"a": 1, "a": 2}', b'"F64"', b'"U8"', b"\x00", b"\xff\xfe", b"\r\n",
)  # fmt: skip
"""Difficult values for a parser; each is inserted anywhere, or replaces a value."""

_JSON_SCALAR = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null')


@dataclass(frozen=True)
class Reader:
    """A file, and the function that reads it.

    Attributes:
        name: for reports.
        seed: a valid content.
        read: writes the given content to the file, with what belongs to it, and reads it.
    """

    name: str
    seed: bytes
    read: Callable[[bytes], object]


@dataclass
class Outcome:
    """Results of a reader over many inputs."""

    loaded: int = 0
    refused: int = 0
    failures: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0


def mutate(data: bytes, randomness: random.Random) -> bytes:
    """`data` with one to three mutations; the header of a safetensors file is mutated with a matching length."""
    length = int.from_bytes(data[:8], "little")
    if data[8:9] == b"{" and length < len(data) and randomness.random() < 0.7:
        header = mutate(data[8 : 8 + length], randomness)
        return len(header).to_bytes(8, "little") + header + data[8 + length :]
    for _ in range(randomness.randint(1, 3)):
        data = randomness.choice(_MUTATIONS)(data, randomness)
    return data


def flip_bit(data: bytes, bit: int) -> bytes:
    """`data` with one bit inverted."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def try_inputs(reader: Reader, inputs: int, random_seed: int = 0) -> Outcome:
    """Reads `inputs` mutations of the reader's seed; any result but a value or a short one-line error is a failure."""
    randomness = random.Random(f"{reader.name} {random_seed}")
    outcome = Outcome()
    for _ in range(inputs):
        data = mutate(reader.seed, randomness)
        started = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # a warning is a second line, of a library's own
                warnings.simplefilter("ignore", ResourceWarning)  # the default
                reader.read(data)
            outcome.loaded += 1
        except QuickfoxError as error:
            outcome.refused += 1
            if "\n" in str(error) or len(str(error)) > 1000:
                outcome.failures.append(f"{data[:300]!r}: a message of {len(str(error))} characters: {error!s:.300}")
        except Exception as error:
            outcome.failures.append(f"{data[:300]!r}: {type(error).__name__}: {error!s:.300}")
        outcome.slowest_seconds = max(outcome.slowest_seconds, time.perf_counter() - started)
    return outcome


def _span(data: bytes, randomness: random.Random, longest: int = 32) -> tuple[int, int]:
    start = randomness.randint(0, len(data))
    return start, min(len(data), start + randomness.randint(0, longest))


def _flip(data: bytes, randomness: random.Random) -> bytes:
    return flip_bit(data, randomness.randrange(8 * len(data))) if data else data


def _cut(data: bytes, randomness: random.Random) -> bytes:
    return data[: randomness.randint(0, len(data))]


def _delete(data: bytes, randomness: random.Random) -> bytes:
    start, stop = _span(data, randomness)
    return data[:start] + data[stop:]


def _duplicate(data: bytes, randomness: random.Random) -> bytes:
    start, stop = _span(data, randomness, longest=200)
    return data[:stop] + data[start:stop] + data[stop:]


def _insert(data: bytes, randomness: random.Random) -> bytes:
    start, _ = _span(data, randomness)
    return data[:start] + randomness.randbytes(randomness.randint(1, 8)) + data[start:]


def _splice(data: bytes, randomness: random.Random) -> bytes:
    start, stop = _span(data, randomness, longest=4)
    return data[:start] + randomness.choice(HOSTILE_VALUES) + data[stop:]


def _replace_value(data: bytes, randomness: random.Random) -> bytes:
    places = [match.span() for match in _JSON_SCALAR.finditer(data)]
    if not places:
        return data
    start, stop = randomness.choice(places)
    return data[:start] + randomness.choice(HOSTILE_VALUES) + data[stop:]


_MUTATIONS = (_flip, _cut, _delete, _duplicate, _insert, _splice, _replace_value, _replace_value, _replace_value)
