"""Train a language model on your own text, on your own computer, and sample from it.

    import quickfox

    model = quickfox.train("corpus.txt", budget=60)  # seconds; needs TensorFlow
    model = quickfox.resume("runs/corpus")  # continues an interrupted run
    model = quickfox.load("runs/corpus")  # needs only NumPy
    print(model.generate("The quick brown fox", length=200))

Every expected failure is a subclass of QuickfoxError. NumPy and TensorFlow are imported on first use.
"""

from typing import TYPE_CHECKING, Any

from quickfox.errors import (
    BusyError,
    CannotCreateError,
    DataError,
    DivergedError,
    NewerFormatError,
    NoInputError,
    PeerLostError,
    QuickfoxError,
    StorageError,
    UnavailableError,
    UsageError,
)
from quickfox.version import __version__

if TYPE_CHECKING:
    from quickfox.api import Model, load, resume, train

__all__ = [
    "BusyError",
    "CannotCreateError",
    "DataError",
    "DivergedError",
    "Model",
    "NewerFormatError",
    "NoInputError",
    "PeerLostError",
    "QuickfoxError",
    "StorageError",
    "UnavailableError",
    "UsageError",
    "__version__",
    "load",
    "resume",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in ("Model", "load", "resume", "train"):
        raise AttributeError(f"module 'quickfox' has no attribute {name!r}")
    from quickfox import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
