"""A pytest plugin: tests that an earlier call finished are not run again.

`KIT_FINISHED` names the file of their ids. A test that failed is run again.
"""

import os
from pathlib import Path

import pytest


def _file() -> Path:
    return Path(os.environ["KIT_FINISHED"])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    finished = set(_file().read_text().splitlines()) if _file().is_file() else set()
    earlier = [item for item in items if item.nodeid in finished]
    if earlier:
        config.hook.pytest_deselected(items=earlier)
        items[:] = [item for item in items if item.nodeid not in finished]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.passed:
        with _file().open("a") as file:
            file.write(f"{report.nodeid}\n")
