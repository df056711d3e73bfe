"""A command with nothing to do is known without torch, and only where nothing has changed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ropewalk.conf.schema import Config
from ropewalk.launch.cli import main
from ropewalk.launch.config.compose import compose
from ropewalk.launch.pipeline import unchanged
from ropewalk.train.base import BASES

SETTINGS = [
    "name=small", "model.path=base", "runs_dir=runs", "cache_dir=cache", "data.seq_len=128",
    "data.sources.texts.path=texts", "data.sources.texts.weight=1", "rope=yarn", "rope.factor=2",
]  # fmt: skip
SCRIPT = """
import sys
from ropewalk.launch.cli import main
main(sys.argv[1:])
print({"torch", "transformers"} & sys.modules.keys())
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base, documents, and a run whose data stage is done."""
    folder = tmp_path_factory.mktemp("unchanged")
    shutil.copytree(BASES / "demo", folder / "base")
    (folder / "texts").mkdir()
    for number in range(30):
        (folder / "texts" / f"{number}.txt").write_text(f"line {number} of a text\n" * 100)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(["data", *SETTINGS])
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(finished, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def config(*overrides: str) -> Config:
    return compose([*SETTINGS, *overrides], "data")


def stages(*overrides: str) -> list[str] | None:
    result = unchanged.finished_stages(config(*overrides), "data")
    return None if result is None else list(result)


def test_the_second_command_skips_its_stages_without_torch(folder: Path) -> None:
    arguments = [sys.executable, "-c", SCRIPT, "data", *SETTINGS]
    result = subprocess.run(arguments, capture_output=True, text=True)
    lines = result.stdout.splitlines()
    skipped = "done before with the same settings and inputs; skipped"
    assert result.returncode == 0, result.stderr
    assert lines[:2] == [f"rope: {skipped}", f"data: {skipped}"]
    assert lines[-2:] == ["wrote runs/small/data/ledger.json", "set()"]


def rewrite_with_the_same_time(path: Path) -> None:
    status, content = path.stat(), path.read_bytes()
    path.write_bytes(content[:-2] + content[-2:][::-1])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("key", ["eval.ruler.haystack", "eval.short_context.lm_eval.include_path"])
def test_a_file_below_a_folder_of_the_evaluation_counts(folder: Path, key: str) -> None:
    (folder / "more").mkdir()
    file = folder / "more" / "a.txt"
    file.write_text("some text")
    main(["data", *SETTINGS, f"{key}=more"])
    assert stages(f"{key}=more") == ["rope", "data"]
    rewrite_with_the_same_time(file)
    assert stages(f"{key}=more") is None


CHANGES: dict[str, Callable[[Path], object]] = {
    "a document": lambda folder: rewrite_with_the_same_time(folder / "texts/3.txt"),
    "another document": lambda folder: (folder / "texts/new.txt").write_text("more"),
    "a document less": lambda folder: (folder / "texts/3.txt").unlink(),
    "the weights": lambda folder: rewrite_with_the_same_time(folder / "base/model.safetensors"),
    "the tokenizer": lambda folder: (folder / "base/tokenizer.json").open("a").write(" "),
    "a result": lambda folder: (folder / "runs/small/data/ledger.json").open("a").write(" "),
    "a result less": lambda folder: (folder / "runs/small/rope.json").unlink(),
    "the plan": lambda folder: next(folder.glob("cache/plans/*/plan.arrow")).write_bytes(b"x"),
    "the tokens": lambda folder: shutil.rmtree(next(folder.glob("cache/tokens/[0-9a-f]*"))),
    "the record": lambda folder: (folder / "runs/small" / unchanged.RECORD).open("a").write("x"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_any_change_takes_the_way_through_the_stages(
    folder: Path, change: Callable[[Path], object]
) -> None:
    assert stages() == ["rope", "data"]
    change(folder)
    assert stages() is None


@pytest.mark.parametrize("override", ["seed=5", "eval.windows=3", "train.steps=7", "rope=pi"])
def test_any_setting_counts(folder: Path, override: str) -> None:
    assert stages(override) is None


def test_another_verb_or_version_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert unchanged.finished_stages(config(), "report") is None
    monkeypatch.setattr(unchanged, "code_digest", lambda: "another")
    assert stages() is None


def test_what_lies_elsewhere_is_never_taken_as_unchanged(folder: Path) -> None:
    for override in ("model.path=organisation/model", "data.sources.texts.path=s3://a/b"):
        unchanged.record(config(override), "data", ["rope", "data"], [])
        assert stages(override) is None
