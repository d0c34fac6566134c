"""Exit statuses are a promise to scripts: these numbers do not change."""

import pytest

from quickfox import errors
from quickfox.errors import ExitStatus, QuickfoxError

STATUSES = {
    errors.QuickfoxError: 1,
    errors.DivergedError: 1,
    errors.UsageError: 2,
    errors.DataError: 65,
    errors.NoInputError: 66,
    errors.UnavailableError: 69,
    errors.CannotCreateError: 73,
    errors.StorageError: 74,
    errors.BusyError: 75,
    errors.PeerLostError: 75,
}


@pytest.mark.parametrize(("kind", "status"), STATUSES.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_exit_status_of_each_error(kind: type[QuickfoxError], status: int) -> None:
    assert kind("message").exit_status == status
    assert str(kind("message")) == "message"


def test_no_error_is_forgotten_here() -> None:
    assert set(STATUSES) == {QuickfoxError, *QuickfoxError.__subclasses__()}


def test_statuses_that_signals_and_pipes_end_with() -> None:
    """128 and the signal's number, as a shell reports it."""
    assert ExitStatus.INTERRUPTED == 128 + 2
    assert ExitStatus.CLOSED_PIPE == 128 + 13
    assert ExitStatus.TERMINATED == 128 + 15
    assert ExitStatus.TEMPORARY == 75
    assert ExitStatus.SUCCESS == 0
