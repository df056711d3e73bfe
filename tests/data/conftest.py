"""The folder that the tests of the whole stage run in."""

from pathlib import Path

import pytest
from data_fixture import DataFixture


@pytest.fixture
def data_fixture(tmp_path: Path) -> DataFixture:
    return DataFixture(tmp_path)
