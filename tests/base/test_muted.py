"""Silence ends when it should."""

import warnings

import pytest

from tlbench.base.muted import no_warnings


def test_warnings_are_as_they_were_when_the_last_thread_is_out() -> None:
    """Threads come and go in any order: who came first may leave first."""
    before = list(warnings.filters)
    for _ in range(2):
        no_warnings.__enter__()
    warnings.warn("dropped", DeprecationWarning, stacklevel=1)  # pytest makes it an error
    no_warnings.__exit__()
    warnings.warn("dropped, too", DeprecationWarning, stacklevel=1)
    no_warnings.__exit__()
    assert warnings.filters == before
    with pytest.warns(DeprecationWarning, match="heard"):
        warnings.warn("heard", DeprecationWarning, stacklevel=1)
