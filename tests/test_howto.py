"""The pages of docs/howto: each command runs in the order of its page, on a small copy of the
page's files (pages.write_small: short lengths, a model of two layers, two steps).

Here the commands that start ranks or take long stop after all that is checked first (`--dry-run`);
their real work is proved elsewhere: run, train, eval, report in test_end_to_end.py, adapters in
test_lora.py, check in launch/check/, export in train/export/, a Slurm job in test_cluster.py. Data,
rope and runs are done here. The slow tests do every page in full, and plan each page's own file.
That all commands compose at their full size is in test_readme.py.
"""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pages
import pytest
from architectures import SMOLLM2_135M
from commands import ENV
from pages import HOWTO

from ropewalk.conf import recipe_card
from ropewalk.launch.cli import main

OF_1700M: dict[str, Any] = SMOLLM2_135M | {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 24,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "rope_theta": 130000.0,
}


def published(recipe: str) -> dict[str, Any]:
    return dict(recipe_card.read(recipe_card.FOLDER / f"{recipe}.yaml").base.config)


BASES = {
    "documents": SMOLLM2_135M,
    "own-model": OF_1700M,
    "lora": published("qwen3_128k"),
    "128k": published("qwen3_128k"),
    "1m": published("ultralong"),
}
"""Page -> config.json of the base in its file."""
SHRINK = {"1m": 512}
"""Page -> by what its lengths are divided in its small copy; 64 for the others."""
STARTS = ("run", "check", "eval", "report", "export")
PLANS = [
    (page, words, text)
    for page in HOWTO
    for words, text in re.findall(r"^```plan (.*?)\n(.*?)^```", page.read_text(), re.S | re.M)
]


def small_copy(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the folder, which becomes the working folder."""
    monkeypatch.chdir(folder)
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)
    pages.write_small(page, BASES[page.stem], SHRINK.get(page.stem, 64), folder)


def typed(line: str) -> list[str]:
    return shlex.split(line)[1:]


def call(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A command, which prints something. A plan of a small copy only composes."""
    main([*words, *(["--cfg", "job"] if words[0] == "plan" else [])])
    assert capsys.readouterr().out, words


def test_every_page_has_a_base_here_and_is_in_the_list_of_jobs() -> None:
    assert {page.stem for page in HOWTO} == {*BASES}
    listed = (HOWTO[0].parent / "README.md").read_text()
    assert all(f"({page.name})" in listed for page in HOWTO)


@pytest.mark.parametrize("page", HOWTO, ids=lambda page: page.stem)
def test_the_commands_of_a_page_follow_each_other_on_a_small_copy(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small_copy(page, tmp_path, monkeypatch)
    for line in pages.commands_of(page):
        words = typed(line)
        call([*words, *["--dry-run"] * (words[0] in STARTS)], capsys)


@pytest.mark.slow
@pytest.mark.parametrize("page", HOWTO, ids=lambda page: page.stem)
def test_a_page_works_from_its_first_command_to_the_export(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is submitted to Slurm runs on this machine; plans are those of the next test."""
    small_copy(page, tmp_path, monkeypatch)
    for line in pages.commands_of(page):
        call([w for w in typed(line) if not w.startswith(("launch", "cluster="))], capsys)
    assert [*tmp_path.glob("runs/*/report/index.html")]
    assert [*tmp_path.glob("runs/*/export/SERVING.md")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "words", "text"), PLANS, ids=lambda part: getattr(part, "stem", "")
)
def test_the_forecast_of_a_page_is_what_the_plan_says_now(
    page: Path,
    words: str,
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    pages.write_files(page, tmp_path)
    Path("base").mkdir()
    Path("base/config.json").write_text(json.dumps(BASES[page.stem]))
    main(["plan", "--config-dir", "my-recipes", "model.path=base", *shlex.split(words)])
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in text.splitlines() if line not in printed] == []
