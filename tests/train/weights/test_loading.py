"""What a load leaves over, draws at random or reads as nan is refused, in every rank."""

from collections.abc import Callable
from pathlib import Path

import loading_ranks
import pytest
import ranks
from base_folders import DAMAGES, Tensors, copy_with, load, stored

from ropewalk.train.base import Base, base_config
from ropewalk.train.preflight import file_problems
from ropewalk.train.weights.loading import loading_problems

NAME = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def damaged(tmp_path: Path) -> Callable[[str], Path]:
    source, tensors = stored("llama", tmp_path)

    def make(damage: str) -> Path:
        changed: Tensors = DAMAGES[damage](tensors, NAME) if damage else tensors
        return copy_with(source, tmp_path / f"damaged {damage}", changed)

    return make


def test_every_rank_of_a_partitioned_model_names_the_tensor(
    damaged: Callable[[str], Path],
) -> None:
    first, second = ranks.run(2, loading_ranks.refusal, str(damaged("with nan")), 3)
    assert first == second
    assert first.startswith(f"model.path is base; {NAME} has values that are nan or inf")


def test_a_model_of_one_rank_names_the_tensor(damaged: Callable[[str], Path]) -> None:
    message = loading_ranks.refusal(str(damaged("with nan")), 0)
    assert message.startswith(f"model.path is base; {NAME} has values that are nan or inf")
    assert loading_ranks.refusal(str(damaged("")), 0) == "False"


@pytest.mark.parametrize("damage", ["removed", "renamed", "resized"])
def test_a_load_is_refused_by_what_transformers_reports(
    damaged: Callable[[str], Path], damage: str
) -> None:
    folder = damaged(damage)
    message = loading_ranks.refusal(str(folder), 0)
    info = load(folder)[1]
    lines = loading_problems(info, "model.path is base")
    assert any(info.values()) and NAME in message
    assert any(NAME in line for line in lines)


def in_hub_cache(folder: Path, hub: Path, commit: str) -> None:
    """Put a folder where the Hub's client would have downloaded it as maker/base."""
    snapshot = hub / "models--maker--base" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for file in folder.iterdir():
        (snapshot / file.name).symlink_to(file)


def test_a_downloaded_base_is_checked_too(
    damaged: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    commits = {"removed": "a" * 40, "": "b" * 40}
    for damage, commit in commits.items():
        in_hub_cache(damaged(damage), tmp_path / "hub", commit)
    config = base_config(Base(str(tmp_path / "llama")))
    broken, good = (Base("maker/base", commit) for commit in commits.values())
    (line,) = file_problems(broken, config)
    assert line.startswith(f"model.path is maker/base; its files lack {NAME}")
    assert file_problems(good, config) == []
    assert file_problems(Base("maker/other", "c" * 40), config) == []  # not downloaded yet
