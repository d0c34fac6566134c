"""Exit statuses are a public interface of scripts: these numbers do not change."""

import pytest

from quickfox import errors
from quickfox.errors import ExitStatus, QuickfoxError, UsageError

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


def test_every_error_is_tested() -> None:
    assert set(STATUSES) == {QuickfoxError, *QuickfoxError.__subclasses__()}


def test_a_usage_error_is_a_value_error_with_the_names_of_its_settings() -> None:
    with pytest.raises(ValueError, match="hidden_dim must be even") as error:
        raise UsageError("hidden_dim must be even", "hidden_dim")
    assert error.value.settings == ("hidden_dim",)  # type: ignore[attr-defined]
    assert UsageError("message").settings == ()
    assert errors.DataError("window is too long", "window").settings == ("window",)


def test_exit_statuses_of_signals_and_pipes() -> None:
    """128 plus the signal's number, as a shell reports it."""
    assert ExitStatus.INTERRUPTED == 128 + 2
    assert ExitStatus.CLOSED_PIPE == 128 + 13
    assert ExitStatus.TERMINATED == 128 + 15
    assert ExitStatus.TEMPORARY == 75
    assert ExitStatus.SUCCESS == 0
