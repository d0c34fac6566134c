"""Read and write JSON, and refuse what the standard library's reader accepts silently.

A key given twice, NaN, infinity and a number too large for a float are errors (RFC 8259 leaves them to the reader).
Independent of what the values mean.
"""

import json
import math
import stat
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from quickfox.errors import DataError
from quickfox.files.errors import translate_read_errors

MAX_JSON_BYTES = 16 * 2**20

_SHOWN_CHARACTERS = 40


def parse_json(data: bytes, where: str, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Decodes a JSON text.

    Args:
        data: the text in UTF-8.
        where: name of its file, which begins error messages.
        max_bytes: size limit, checked before parsing.

    Raises:
        DataError: too large, not UTF-8, not JSON, a key given twice, a number that is not finite, an unpaired
            surrogate, or nesting beyond Python's recursion limit.
    """
    if len(data) > max_bytes:
        raise DataError(f"{where}: larger than the limit of {max_bytes} bytes")
    try:
        value = json.loads(
            data.decode(),
            object_pairs_hook=_unique_members,
            parse_float=_finite_float,
            parse_constant=_refuse_constant,
        )
        json.dumps(value, ensure_ascii=False).encode()  # fails on an unpaired surrogate
    except RecursionError:
        raise DataError(f"{where}: not valid JSON: nested too deeply") from None
    except (json.JSONDecodeError, UnicodeError) as error:
        raise DataError(f"{where}: not valid JSON: {error}") from None
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    except ValueError:  # Python's limit of 4300 digits
        raise DataError(f"{where}: an integer has too many digits") from None
    return value


def read_json(path: Path, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Decodes the JSON file `path`; raises the errors of `parse_json` and `read_bounded`."""
    return parse_json(read_bounded(path, max_bytes), str(path), max_bytes)


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """Reads the regular file `path`, never more than `max_bytes` of it.

    Raises:
        NoInputError: there is no such file.
        DataError: a directory, a pipe or a device, or larger than `max_bytes`.
        StorageError: reading failed.
    """
    with translate_read_errors(path):
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe could block
            raise DataError(f"{path}: not a regular file")
        if status.st_size > max_bytes:
            raise DataError(f"{path}: {status.st_size} bytes are more than the limit of {max_bytes}")
        with path.open("rb") as file:
            return file.read(status.st_size)


def format_json(value: Mapping[str, Any]) -> bytes:
    """Encodes an object as indented ASCII JSON, always the same bytes for the same value."""
    return (json.dumps(dict(value), ensure_ascii=True, allow_nan=False, indent=2) + "\n").encode("ascii")


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        ((name, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise DataError(f"{name[:_SHOWN_CHARACTERS]!r} is given twice")
    return members


def _finite_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise DataError(f"{digits[:_SHOWN_CHARACTERS]} is too large a number")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise DataError(f"{name} is not a JSON number")
