"""Some of the hostile run folders that hostile.py gives to every verb."""

import shutil
from pathlib import Path

import hostile


def test_no_run_folder_breaks_a_verb(tiny_run: Path, tmp_path: Path) -> None:
    cases = hostile.cases()
    assert len(cases) >= 200
    good = shutil.copytree(tiny_run, tmp_path / "good")
    wrong = []
    for name in list(cases)[3::59]:
        wrong += hostile.try_case(name, cases[name], good, tmp_path)
    assert wrong == []
