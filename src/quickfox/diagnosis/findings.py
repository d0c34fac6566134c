"""What the check of a corpus finds: faults of several kinds, each with its number and an example of its place."""

from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal[
    "mojibake",
    "replacement-character",
    "control-character",
    "private-use",
    "unassigned",
    "mixed-line-ends",
    "long-line",
    "boilerplate",
    "duplicate",
    "near-duplicate",
    "repeated-passage",
    "length-skew",
    "overlap",
    "too-small",
]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Finding:
    """A kind of fault in a corpus.

    Attributes:
        kind: what it is.
        count: number of occurrences; their unit depends on the kind.
        where: the place of the first or worst of them.
        message: what it is and what to do, in one line.
    """

    kind: Kind
    count: int
    where: str
    message: str
