from pathlib import Path

import pytest
import ruler_suite
import yaml


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The settings that name prose and question files."""
    folder = tmp_path_factory.mktemp("ruler")
    return {
        "haystack": ruler_suite.prose(folder),
        "squad": ruler_suite.squad(folder),
        "hotpotqa": ruler_suite.hotpotqa(folder),
    }


@pytest.fixture(scope="module")
def wording_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A wording of the user's."""
    path: Path = tmp_path_factory.mktemp("wording") / "texts.yaml"
    path.write_text(yaml.safe_dump(ruler_suite.THEIRS))
    return str(path)
