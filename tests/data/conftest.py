"""The folder that the tests of the whole stage run in."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from place import Place  # noqa: E402


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)
