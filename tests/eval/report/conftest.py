"""A run folder with every artifact, and its page."""

from pathlib import Path

import pytest
from report_run import make_run

from ropewalk.eval.report.page import render


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run folder that the test may change."""
    return make_run(tmp_path)


@pytest.fixture(scope="session")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The full page, rendered once for the tests that only read it."""
    return render(make_run(tmp_path_factory.mktemp("run")))
