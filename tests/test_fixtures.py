"""Test data lie under tests/fixtures/<source>/<case>, and nowhere beside the tests."""

from pathlib import Path

import pytest

from tests.fixtures import CONFIG_FILE, EXPECTED_FILE, case_folder, checkpoint_of, golden_cases

TESTS = Path(__file__).parent
CODE_AND_PROSE = (".py", ".md", ".pyc")


def test_data_lie_in_the_folder_of_a_case() -> None:
    files = [path.relative_to(TESTS) for path in TESTS.rglob("*") if path.is_file()]
    seen = [path for path in files if not path.name.startswith(".")]
    data = [path for path in seen if path.suffix not in CODE_AND_PROSE]
    assert [str(path) for path in data if path.parts[0] != "fixtures" or len(path.parts) < 4] == []


def test_golden_cases_are_found_with_their_three_files() -> None:
    cases = golden_cases()
    assert cases["rosinality_glow_b"] == case_folder("rosinality", "glow_b")
    for folder in cases.values():
        names = {CONFIG_FILE, EXPECTED_FILE, checkpoint_of(folder).name}
        assert {path.name for path in folder.iterdir()} == names


def test_a_case_that_is_not_there_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="rosinality/glow_z: expected the folder"):
        case_folder("rosinality", "glow_z")
