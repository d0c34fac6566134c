"""Reading JSON that may be damaged or hostile: all that is read is valid, small, unambiguous, or refused by name.

Python's own reader keeps the last of two equal keys, takes NaN and Infinity, and turns 1e400 into infinity;
here each is an error (RFC 8259 leaves them to the reader). It knows nothing of what the values mean.
"""

import json
import math
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from quickfox.errors import DataError, NoInputError, StorageError

MAX_JSON_BYTES = 16 * 2**20
MAX_DEPTH = 32
"""Objects and lists within each other; ours need four."""

MAX_NODES = 2**18
"""Brackets and colons in all, those within strings too: an empty object takes thirty times its bytes in memory."""

_SHOWN_CHARACTERS = 40


def parse_json(data: bytes, where: str, max_bytes: int = MAX_JSON_BYTES, max_nodes: int = MAX_NODES) -> Any:
    """The value that the JSON text `data` (UTF-8) stands for.

    Args:
        data: the text's bytes.
        where: the file it came from, for the message.
        max_bytes: more than this is refused unread.
        max_nodes: so are more objects, lists and members.

    Raises:
        DataError: too large, or too many objects, lists and members; not UTF-8; not JSON; a key given twice in one
            object; NaN, an infinity or a number too large; half a surrogate pair; nested deeper than MAX_DEPTH.
    """
    if len(data) > max_bytes:
        raise DataError(f"{where}: larger than the {max_bytes} bytes it may have")
    if sum(map(data.count, (b"{", b"[", b":"))) > max_nodes:
        raise DataError(f"{where}: more than {max_nodes} objects, lists and members")

    def build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members: dict[str, Any] = {}
        for key, value in pairs:
            if key in members:
                raise DataError(f"{where}: {key[:_SHOWN_CHARACTERS]!r} is given twice")
            members[key] = value
        return members

    def parse_float(digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):
            raise DataError(f"{where}: {digits[:_SHOWN_CHARACTERS]} is too large a number")
        return value

    def refuse_constant(name: str) -> NoReturn:
        raise DataError(f"{where}: {name} is not a JSON number")

    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=build_object,
            parse_float=parse_float,
            parse_constant=refuse_constant,
        )
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # fails on half a surrogate pair
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 at byte {error.start}") from None
    except UnicodeEncodeError:
        raise DataError(f"{where}: a string holds half a surrogate pair, which is no character") from None
    except RecursionError:
        raise DataError(f"{where}: nested deeper than {MAX_DEPTH} levels") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not valid JSON: {error}") from None
    except ValueError:  # Python's bound on the digits of an integer
        raise DataError(f"{where}: an integer has too many digits") from None
    _check_depth(value, where)
    return value


def read_json(path: Path, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """The value in the JSON file `path`; see `parse_json` and `read_bounded` for what is refused."""
    return parse_json(read_bounded(path, max_bytes), str(path), max_bytes)


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """The content of the regular file `path`, never more than `max_bytes` of it in memory.

    Raises:
        NoInputError: there is no such file.
        DataError: not a regular file (a folder, a pipe, a device), or larger than `max_bytes`.
        StorageError: reading failed.
    """
    with input_errors(path):
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # to open a pipe could wait for ever
            raise DataError(f"{path}: not a regular file")
        if status.st_size > max_bytes:
            raise DataError(f"{path}: {status.st_size} bytes are more than the {max_bytes} it may have")
        with path.open("rb") as file:
            return file.read(status.st_size)


@contextmanager
def input_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's errors in the body, which reads or looks at `path`, into ours.

    Raises:
        NoInputError: there is no such file.
        StorageError: reading failed.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise NoInputError(f"{path}: no such file") from None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error


def format_json(value: Mapping[str, Any]) -> bytes:
    """The object `value` as readable JSON, the same bytes for the same value; the inverse of `parse_json`."""
    return (json.dumps(dict(value), ensure_ascii=True, allow_nan=False, indent=2) + "\n").encode("ascii")


def _check_depth(value: Any, where: str) -> None:
    depth, level = 0, _containers([value])
    while level:
        depth += 1
        level = _containers(child for each in level for child in (each.values() if isinstance(each, dict) else each))
    if depth > MAX_DEPTH:
        raise DataError(f"{where}: nested deeper than {MAX_DEPTH} levels")


def _containers(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if isinstance(value, dict | list)]
