"""A few cases of each kind that fuzz.py searches thousands of."""

from pathlib import Path

import fuzz


def test_no_input_ends_in_a_traceback(tmp_path: Path) -> None:
    for name, tried, failures in fuzz.search(cases=75, number=1, folder=tmp_path):
        assert tried >= 70
        assert failures == [], f"{name}: {failures[0]}"
