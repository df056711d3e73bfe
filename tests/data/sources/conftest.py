"""Reading a source as the stage does: listed, then unit by unit."""

from collections.abc import Callable
from pathlib import Path

import pytest

Read = Callable[..., tuple[dict[str, str], dict[str, str]]]


@pytest.fixture(scope="session")
def read() -> Read:
    """Texts by id, and refusal reasons by location."""
    from ropewalk.conf.rules import problems
    from ropewalk.conf.sources import SourceConfig
    from ropewalk.data import sources
    from ropewalk.data.sources import Document, Refusal

    def read_source(
        path: Path | str, kind: str = "auto", **settings: str
    ) -> tuple[dict[str, str], dict[str, str]]:
        source = SourceConfig(path=str(path), kind=kind, **settings)  # type: ignore[arg-type]
        assert not list(problems(source, "data.sources.mine."))
        listing = sources.list_source(source, "mine")
        items = [item for unit in listing.units for item in listing.documents(unit)]
        good = {i.id: i.text for i in items if isinstance(i, Document)}
        bad = {i.where: i.reason for i in items if isinstance(i, Refusal)}
        assert len(good) + len(bad) == len(items)
        return good, bad

    return read_source
