"""The number that a search optimises, in the files of a run."""

from pathlib import Path

import pytest

from ropewalk.conf.artifacts.records import write_json
from ropewalk.conf.errors import RopewalkError
from ropewalk.launch.sweep import objective

RESULTS = {
    "models": {
        "extended": {
            "perplexity": {"2048": 7.5},
            "passkey": [
                {"length": 256, "depth": 0.0, "accuracy": 1.0},
                {"length": 2048, "depth": 0.0, "accuracy": 0.25},
                {"length": 2048, "depth": 1.0, "accuracy": 0.75},
            ],
            "nll_by_position": [{"nll": float("nan")}],
        }
    }
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for folder in ("eval", "train"):
        (tmp_path / folder).mkdir()
    write_json(tmp_path / "eval" / "results.json", RESULTS)
    lines = '{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.5}\n'
    (tmp_path / "train" / "metrics.jsonl").write_text(lines)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("results.extended.perplexity.2048", 7.5),
        ("results.extended.passkey[length=2048].accuracy", 0.5),
        ("results.extended.passkey.accuracy", 2 / 3),
        ("metrics.loss", 2.5),
    ],
)
def test_a_path_names_a_value_or_the_mean_of_rows(run: Path, path: str, value: float) -> None:
    assert objective.value(path, run) == pytest.approx(value)


@pytest.mark.parametrize(
    "path", ["results.extended.needle", "results.extended.nll_by_position.nll"]
)
def test_a_run_without_a_finite_number_has_no_value(run: Path, path: str) -> None:
    with pytest.raises(RopewalkError, match="no finite number"):
        objective.value(path, run)


def test_a_run_without_the_file_has_no_value(tmp_path: Path) -> None:
    with pytest.raises(RopewalkError, match=r"has no metrics\.loss"):
        objective.value("metrics.loss", tmp_path)
