"""What cannot be compared is refused, all problems at once."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from compared_runs import RunFolder, planted

from ropewalk.conf.artifacts import manifest
from ropewalk.conf.errors import ConfigError
from ropewalk.launch.compare.comparison import compare
from ropewalk.launch.compare.reading import models_of


def trained(runs: Path, name: str, number: int = 1, **more: Any) -> Path:
    return RunFolder(name, {"base": planted(9), "extended": planted(number)}, **more).write(runs)


def named(runs: Path, name: str, *columns: str) -> Path:
    kept = {column: planted(number) for number, column in enumerate(columns)}
    return RunFolder(name, kept).write(runs)


def names(*words: object) -> list[str]:
    return [model.name for model in models_of([str(word) for word in words])]


def test_a_training_is_compared_by_what_it_trained_and_an_evaluation_by_all_its_models(
    tmp_path: Path,
) -> None:
    one, two = trained(tmp_path, "one"), trained(tmp_path, "two")
    several = named(tmp_path, "several", "a", "b")
    assert names(one, two) == ["one", "two"]
    assert names(several) == ["a", "b"]
    assert names(one, several) == ["one", "several:a", "several:b"]
    assert names(one, f"{one}:base", two) == ["one:extended", "one:base", "two"]
    assert names(one, f"{two}:base") == ["one", "two"]
    assert names(one, one, two) == ["one", "two"]


def refused(*words: object) -> list[str]:
    with pytest.raises(ConfigError) as error:
        models_of([str(word) for word in words])
    return str(error.value).splitlines()


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    one = trained(tmp_path, "one")
    (tmp_path / "empty").mkdir()
    unmeasured = trained(tmp_path, "unmeasured")
    shutil.rmtree(unmeasured / "eval")
    lines = refused(tmp_path / "none", tmp_path / "empty", unmeasured, one, f"{one}:rescaled")
    rules = ("there is none", "no config.yaml", "eval stage is not finished", "must be one of base")
    assert len(lines) == 4
    assert all(rule in line for rule, line in zip(rules, lines, strict=True))
    assert all(re.match(r"RUN is \S+; .+; .+", line) for line in lines)


def rewrite(run: Path, **changes: Any) -> None:
    """Other results, with a manifest that vouches for them."""
    made = manifest.read(run / "eval")
    assert made is not None
    path = run / "eval" / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    shutil.move(run / "eval", run / "eval.tmp")
    manifest.publish(run / "eval.tmp", run / "eval", made)


def test_results_of_another_schema(tmp_path: Path) -> None:
    one, two = trained(tmp_path, "one"), trained(tmp_path, "two")
    rewrite(two, schema=1)
    (line,) = refused(one, two)
    assert "must have schema 2, and it has 1" in line and "measure again" in line


def test_results_that_were_edited_or_damaged(tmp_path: Path) -> None:
    one, two = trained(tmp_path, "one"), trained(tmp_path, "two")
    losses = two / "eval" / "samples" / "extended" / "losses.f32"
    data = bytearray(losses.read_bytes())
    data[100] ^= 1
    losses.write_bytes(data)
    (line,) = refused(one, two)
    assert "losses.f32" in line and "as they were measured" in line


def test_results_of_a_former_training(tmp_path: Path) -> None:
    one, two = trained(tmp_path, "one"), trained(tmp_path, "two")
    shutil.rmtree(two / "train")
    manifest.run_stage("train", {"seed": 5}, two / "train", lambda _: {})
    (line,) = refused(one, two)
    assert "they are of a former one" in line


def test_files_that_are_no_json_or_yaml(tmp_path: Path) -> None:
    one, two = trained(tmp_path, "one"), trained(tmp_path, "two")
    (one / "config.yaml").write_text("a: [")
    (two / "eval" / "results.json").write_text("{")
    first, second = refused(one, two)
    assert str(one) in first and str(two) in second and "cannot be read" in first


def test_an_evaluation_that_kept_no_samples(tmp_path: Path) -> None:
    one, two = trained(tmp_path, "one"), trained(tmp_path, "two")
    shutil.rmtree(two / "eval" / "samples")
    rewrite(two)
    (line,) = refused(one, two)
    assert "must have kept its samples" in line and "measure again" in line


def test_metrics_that_are_damaged(tmp_path: Path) -> None:
    one, two = trained(tmp_path, "one"), trained(tmp_path, "two")
    with (two / "train" / "metrics.jsonl").open("a") as file:
        file.write("{not json\n")
    with pytest.raises(ConfigError, match=r"two; each line of its metrics.jsonl must be"):
        compare(models_of([str(one), str(two)]))


def test_two_runs_of_one_name(tmp_path: Path) -> None:
    one, other = trained(tmp_path / "a", "run"), trained(tmp_path / "b", "run")
    (line,) = refused(one, other)
    assert "must differ in the name of their folder, and both are run" in line


def test_one_run_alone(tmp_path: Path) -> None:
    one = trained(tmp_path, "one")
    (line,) = refused(one)
    assert "a comparison needs two models" in line and "one:base beside it" in line
    assert names(one, f"{one}:base") == ["extended", "base"]


def test_a_baseline_that_is_not_among_them(tmp_path: Path) -> None:
    models = models_of([str(trained(tmp_path, "one")), str(trained(tmp_path, "two"))])
    with pytest.raises(ConfigError, match="--baseline is three; .* one, two; choose one"):
        compare(models, "three")
    assert compare(models, "two").baseline.name == "two"


def test_other_tokenizers_are_compared_by_answers_alone(tmp_path: Path) -> None:
    one = trained(tmp_path, "one")
    two = trained(tmp_path, "two", 2, facts={"tokenizer": "t1"}, texts=5)
    comparison = compare(models_of([str(one), str(two)]))
    losses = [cell for cell in comparison.cells if cell.measure.unit == "nats" and cell.baseline]
    assert len(losses) == 4
    assert all(cell.reason.startswith("another tokenizer") for cell in losses)
    change = comparison.of("passkey")["two"].difference
    assert change is not None and not change.is_paired


def test_another_length_is_another_protocol(tmp_path: Path) -> None:
    one, two = trained(tmp_path, "one"), trained(tmp_path, "two", results={"length": 48})
    cell = compare(models_of([str(one), str(two)])).of("past_window")["two"]
    assert cell.difference is None
    assert cell.reason.startswith("another protocol") and "16 to 48" in cell.reason


def test_other_texts_are_compared_unpaired(tmp_path: Path) -> None:
    one, two = trained(tmp_path, "one"), trained(tmp_path, "two", texts=5)
    for cell in compare(models_of([str(one), str(two)])).cells:
        assert not cell.baseline or cell.difference and not cell.difference.is_paired
