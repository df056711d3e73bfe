"""`ropewalk recipes`: the table and cards, without heavy libraries; table and page are current."""

import json
import subprocess
import sys

import pytest
import yaml

from ropewalk.conf import recipe_card
from ropewalk.conf.errors import ConfigError
from ropewalk.launch.cli import main
from ropewalk.launch.recipes import bases, costs, listing, page, table

HEAVY = "import sys; from ropewalk.launch.cli import main; main({}); " + (
    "print(sorted({{'torch', 'transformers', 'omegaconf', 'hydra', 'numpy'}} & set(sys.modules)))"
)


def test_the_table_lists_every_recipe_with_its_name_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["recipes", "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == recipe_card.names()
    assert {next(iter(row)) for row in rows} == {"name"}
    main(["recipes"])
    lines = capsys.readouterr().out.splitlines()
    prolong = next(line for line in lines if line.startswith("prolong "))
    for part in ("Meta-Llama-3-8B-Instruct", "8K -> 512K", "abf", "41.9B", "32 x h100", "llama3"):
        assert part in prolong


def test_the_listing_loads_no_heavy_library() -> None:
    """What keeps it at a third of a second."""
    command = [sys.executable, "-c", HEAVY.format(["recipes"])]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "[]"


def test_a_card_tells_origins_contradictions_and_results(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["recipes", "longrope2"])
    text = capsys.readouterr().out
    for part in (
        "train.mixed_windows",
        "paper: section 3.3",
        "FineWeb-Edu",
        "131,072: 82.0",
        "MIT",
    ):
        assert part in text
    main(["recipes", "longrope2", "--json"])
    (row,) = json.loads(capsys.readouterr().out)
    assert next(iter(row)) == "name" and row["base"]["mirror"].startswith("NousResearch/")


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["recipes", "prolongg"])
    assert stop.value.code == 2
    assert "recipes is prolongg; it must be one of codellama, " in capsys.readouterr().err
    with pytest.raises(ConfigError):
        bases.card_of("demo")


def test_the_page_shows_the_table() -> None:
    text = page.FILE.read_text()
    assert page.filled(text, table.read()) == text, "make recipes"
    assert all(f"| {name}, " in text or f"| {name} |" in text for name in recipe_card.names())


def test_every_training_of_the_table_was_traced() -> None:
    """None typed by hand, and none left out: a phase without steps has no plan."""
    for name, row in table.read().items():
        content = yaml.safe_load((bases.RECIPES / f"{name}.yaml").read_text())
        steps = [phase.get("train.steps", 1) for phase in content.get("phases", [{}])]
        assert len(row["plan"]) == sum(map(bool, steps)), name
        for phase in row["plan"]:
            assert phase["verdict"] in listing.VERDICTS, name
            assert phase["peak_gib"] > 0 and phase["host_gib"] is not None, name


def test_a_plan_of_the_table_is_what_is_planned_now() -> None:
    assert costs.plan("pi_llama") == table.read()["pi_llama"]["plan"], "make recipes"
