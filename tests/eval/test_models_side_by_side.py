"""`ropewalk eval eval.models.NAME.path=...`: any models, each by its own rope; an evaluation goes
on after a kill, is shared between runs, and is equal on two ranks."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch
from commands import ENV, STDLIB
from transformers import AutoModelForCausalLM

from ropewalk.conf.errors import NOT_PROVEN, ConfigError
from ropewalk.data.dataset import DataArtifacts
from ropewalk.eval.engine.engine import Engine
from ropewalk.eval.measure.store import ResultStore
from ropewalk.eval.report import page
from ropewalk.eval.requests import Request
from ropewalk.launch.cli import main
from ropewalk.launch.config.compose import compose
from ropewalk.launch.pipeline import stages
from ropewalk.train.base import BASES

LENGTH, WINDOWS = 384, 4
FILES = ("ast.py", "bdb.py", "calendar.py", "cmd.py", "copy.py", "csv.py", "dis.py", "enum.py")


def words(work: Path, *more: str) -> list[str]:
    """Two columns: the demo's base beyond its window, and with a linear rope in its config."""
    return [
        "name=two",
        "eval.models.plain.path=builtin:demo",
        "eval.models.plain.beyond_window=true",
        f"eval.models.linear.path={work / 'linear'}",
        f"data.sources.files.path={work / 'corpus'}",
        "data.sources.files.kind=tree",
        "data.heldout_share=0.5",
        f"eval.length={LENGTH}",
        f"eval.windows={WINDOWS}",
        "eval.tasks=[nll_by_position,passkey]",
        "eval.passkey_tries=2",
        "eval.passkey_depths=[0.5]",
        "eval.batch_tokens=800",
        f"cache_dir={work / 'cache'}",
        f"runs_dir={work / 'runs'}",
        *more,
    ]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, a model folder with a linear rope, and an evaluation of both models."""
    folder = tmp_path_factory.mktemp("models")
    for name in FILES:
        target = folder / "corpus" / name.removesuffix(".py") / name
        target.parent.mkdir(parents=True)
        shutil.copy(STDLIB / name, target)
    shutil.copytree(BASES / "demo", folder / "linear")
    file = folder / "linear" / "config.json"
    config = json.loads(file.read_text())
    theta = config["rope_parameters"]["rope_theta"]
    config["rope_parameters"] = {"rope_type": "linear", "factor": 2.0, "rope_theta": theta}
    config["max_position_embeddings"] = 512
    file.write_text(json.dumps(config))
    main(["eval", *words(folder)])
    return folder


def results(work: Path, runs: str = "runs") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((work / runs / "two" / "eval/results.json").read_text())
    return content


def window_losses(runs: Path, label: str) -> np.ndarray:
    """From the samples of the run, by its windows."""
    folder = runs / "two" / "eval" / "samples" / label
    stored = ResultStore(folder).results
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    names = [line["request"] for line in lines if line["task"] == "nll_by_position"]
    return np.stack([np.asarray(stored[name]) for name in names])


@pytest.mark.parametrize("label", ["plain", "linear"])
def test_each_model_is_measured_by_the_rope_of_its_own_config(work: Path, label: str) -> None:
    """The oracle is transformers, from the folder alone."""
    config = stages_config(work)
    data = DataArtifacts.of(work / "runs" / "two", work / "cache")
    windows = data.heldout_text(config.data).windows(LENGTH, WINDOWS, 2)
    folder = BASES / "demo" if label == "plain" else work / "linear"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for window, losses in zip(windows, window_losses(work / "runs", label), strict=True):
        ids = torch.from_numpy(window.ids)[None]
        with torch.no_grad():
            log_probs = model(ids).logits[0, :-1].log_softmax(-1)
        expected = -log_probs.gather(1, ids[0, 1:, None])[:, 0].numpy()
        np.testing.assert_allclose(losses, expected, atol=2e-4)


@pytest.mark.parametrize("label", ["plain", "linear"])
def test_the_scores_of_the_kept_samples_are_those_of_the_rows(work: Path, label: str) -> None:
    text = (work / "runs" / "two" / "eval" / "samples" / label / "samples.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    scores: dict[tuple[int, float], list[float]] = {}
    for line in lines:
        if line["task"] == "passkey":
            scores.setdefault((line["length"], line["depth"]), []).extend(line["scores"])
    rows = results(work)["models"][label]["passkey"]
    assert len(rows) > 1
    assert scores.keys() == {(row["length"], row["depth"]) for row in rows}
    for row in rows:
        own = scores[row["length"], row["depth"]]
        assert (len(own), float(np.mean(own))) == (row["n"], row["accuracy"])
    assert not any("scores" in line for line in lines if line["task"] == "nll_by_position")


def test_the_models_of_an_evaluation_are_compared_by_their_samples(
    work: Path, tmp_path: Path, capsys: Any
) -> None:
    main(["compare", str(work / "runs" / "two"), "--json", "--output", str(tmp_path)])
    plain, linear = json.loads(capsys.readouterr().out)
    assert (plain["name"], linear["name"], linear["baseline"]) == ("plain", "linear", "plain")
    losses = [window_losses(work / "runs", name)[:, 255:] for name in ("linear", "plain")]
    measured = linear["measures"]["past_window"]
    assert measured["value"] == pytest.approx(float(losses[0].mean()), abs=1e-5)
    change = float((losses[0] - losses[1]).mean())
    assert measured["difference"]["value"] == pytest.approx(change, abs=1e-5)
    assert measured["difference"]["paired"] and linear["hours"] is None
    rows = [row for row in results(work)["models"]["linear"]["passkey"] if row["length"] == LENGTH]
    share = sum(row["accuracy"] * row["n"] for row in rows) / sum(row["n"] for row in rows)
    assert linear["measures"]["passkey"]["value"] == pytest.approx(share)


def stages_config(work: Path, *more: str) -> Any:
    return compose(words(work, *more), "eval")


def test_the_file_says_what_each_column_is(work: Path) -> None:
    content = results(work)
    assert (content["schema"], content["reference"]) == (2, "plain")
    assert list(content["models"]) == list(content["columns"]) == ["plain", "linear"]
    plain, linear = content["columns"].values()
    assert (plain["window"], linear["window"]) == (256, 512)
    assert plain["rope_hash"] != linear["rope_hash"] and plain["tokenizer"] == linear["tokenizer"]
    assert plain["prompts"] == linear["prompts"] and plain["dtype"] == "fp32"
    notes = [note for note in content["notes"] if "on purpose" in note]
    assert len(notes) == 1 and notes[0].startswith("plain is made for 256 tokens")
    assert not (work / "runs" / "two" / "train").exists()


def test_the_report_of_such_an_evaluation_needs_no_training(work: Path, capsys: Any) -> None:
    main(["report", *words(work)])
    assert "eval: done before with the same settings" in capsys.readouterr().out


def asked(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """What the engines are given from now on."""
    requests: list[Request] = []
    measure = Engine.measure

    def counted(self: Engine, part: Sequence[Request]) -> Any:
        requests.extend(part)
        return measure(self, part)

    monkeypatch.setattr(Engine, "measure", counted)
    return requests


def no_model(*_: object, **__: object) -> None:
    raise AssertionError("a model is loaded")


@pytest.mark.parametrize(
    "change", [("eval.windows=2",), ("eval.tasks=[nll_by_position]",), ("name=three",)]
)
def test_what_was_measured_before_needs_no_model(
    work: Path, monkeypatch: pytest.MonkeyPatch, change: tuple[str, ...], tmp_path: Path
) -> None:
    """The losses by position are those of the measurement."""
    monkeypatch.setattr("ropewalk.train.model.build.build", no_model)
    main(["eval", *words(work, f"runs_dir={tmp_path}", *change)])
    (path,) = tmp_path.glob("*/eval/results.json")
    before = json.loads((work / "runs" / "two" / "eval" / "results.json").read_text())["models"]
    for label, rows in json.loads(path.read_text())["models"].items():
        own = rows["nll_by_position"]
        if change != ("eval.windows=2",):
            assert own == before[label]["nll_by_position"]
        assert len(own) == len(before[label]["nll_by_position"])


KILLED = """
import os, signal, sys
from ropewalk.eval.measure.store import ResultStore
from ropewalk.launch.cli import main
extend, batches = ResultStore.extend, []
def killed(self, results):
    extend(self, results)
    if self.folder.parent.name == "eval":
        batches.append(results)
    if len(batches) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
ResultStore.extend = killed
main(sys.argv[1:])
"""


def test_a_killed_evaluation_goes_on_without_a_repeated_request(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 after the third batch of the first column; then a cut last line."""
    places = [f"cache_dir={tmp_path / 'cache'}", f"runs_dir={tmp_path / 'runs'}"]
    command = ["eval", *words(work, *places)]
    done = subprocess.run([sys.executable, "-c", KILLED, *command], env=ENV, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (lines,) = (tmp_path / "cache" / "eval").glob("*/results.jsonl")
    kept = len(lines.read_bytes().splitlines())
    requests = asked(monkeypatch)
    main(command)
    total = sum(len(ResultStore(folder).results) for folder in lines.parents[1].glob("*/"))
    assert 0 < kept < total // 2 and len(requests) == total - kept
    again = (tmp_path / "runs" / "two" / "eval" / "results.json").read_bytes()
    assert again == (work / "runs" / "two" / "eval" / "results.json").read_bytes()


def test_a_model_with_another_tokenizer_reads_the_same_text_and_is_not_paired(
    work: Path, tmp_path: Path, tokenizer: Any
) -> None:
    model = models.tiny_model(vocab_size=len(tokenizer), attn_implementation="eager").eval()
    model.save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    other = [f"eval.models.other.path={tmp_path / 'other'}", "eval.models.other.beyond_window=true"]
    places = [f"runs_dir={tmp_path}", "eval.tasks=[nll_by_position,short_context]"]
    main(["eval", *words(work, *other, *places)])
    content = json.loads((tmp_path / "two" / "eval" / "results.json").read_text())
    plain, linear, third = content["columns"].values()
    assert plain["tokenizer"] == linear["tokenizer"] != third["tokenizer"]
    assert plain["haystack"] != third["haystack"]
    (note,) = (n for n in content["notes"] if n.startswith("other has another tokenizer"))
    assert "bits per byte" in note
    assert content["judged"] == "other" and content["gates"] == []
    assert content["not_judged"].startswith("other has another tokenizer than plain")
    paired = {
        label: any("difference" in row for row in rows["short_context"])
        for label, rows in content["models"].items()
    }
    assert paired == {"plain": False, "linear": True, "other": False}


@pytest.mark.parametrize(
    ("more", "judged", "reference"),
    [
        ((), "linear", "plain"),
        (("eval.reference=linear",), "plain", "linear"),
        (("eval.judged=plain", "eval.reference=linear"), "plain", "linear"),
    ],
)
def test_gates_and_answers_are_made_of_any_two_models(
    work: Path, tmp_path: Path, capsys: Any, more: tuple[str, ...], judged: str, reference: str
) -> None:
    """Few windows decide nothing, which `eval.strict` refuses."""
    tasks = ("eval.tasks=[nll_by_position,window_loss,swapped_gain]", "eval.strict=true")
    length = ("eval.length=640", "eval.models.linear.beyond_window=true")
    with pytest.raises(SystemExit) as exit_:
        main(["eval", *words(work, f"runs_dir={tmp_path}", *tasks, *length, *more)])
    assert exit_.value.code == NOT_PROVEN
    content = json.loads((tmp_path / "two" / "eval" / "results.json").read_text())
    assert (content["judged"], content["reference"]) == (judged, reference)
    gates = {gate["name"]: gate for gate in content["gates"]}
    rise, inside = gates[f"{reference} past its window"], gates["Inside the original window"]
    assert inside["rule"] == f"{judged} against {reference}: at most +0.05"
    losses = {name: window_losses(tmp_path, name) for name in (judged, reference)}
    own, theirs, edge = losses[judged], losses[reference], content["base_window"] - 1
    assert inside["value"] == pytest.approx((own - theirs)[:, :edge].mean(), abs=1e-6)
    expected = theirs[:, edge:].mean() - theirs[:, :edge].mean()
    assert rise["value"] == pytest.approx(expected, abs=1e-6)
    assert (
        gates["Far text swapped"]["value"] == content["models"][judged]["swapped_gain"][-1]["gain"]
    )
    assert {a["question"] for a in content["answers"] if a["answer"] == "undecided"} == {2, 5}
    out, err = capsys.readouterr()
    assert f"({judged} against {reference}: at most +0.05)" in out and "n that would decide" in err


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (("eval.length=256",), "eval.length is 256, no longer than the window of plain, 256"),
        (("eval.reference=linear", "eval.length=512"), "the window of linear, 512"),
    ],
)
def test_without_a_longer_context_only_the_cost_inside_is_judged(
    work: Path, tmp_path: Path, more: tuple[str, ...], reason: str
) -> None:
    tasks = "eval.tasks=[nll_by_position,window_loss]"
    main(["eval", *words(work, f"runs_dir={tmp_path}", tasks, *more)])
    content = json.loads((tmp_path / "two" / "eval" / "results.json").read_text())
    assert [gate["name"] for gate in content["gates"]] == ["Inside the original window"]
    assert content["gates"][0]["decides"] and content["not_judged"] is None
    assert all(reason in answer["reason"] for answer in content["answers"][:4])
    assert reason in page.render(tmp_path / "two")


def test_two_ranks_measure_what_one_does(work: Path, tmp_path: Path) -> None:
    """Ranks of the launcher, in fp32 on a CPU: the same bytes."""
    places = [f"cache_dir={tmp_path / 'cache'}", f"runs_dir={tmp_path / 'runs'}"]
    main(["eval", *words(work, *places, "eval.ranks_per_node=2")])
    again = (tmp_path / "runs" / "two" / "eval" / "results.json").read_bytes()
    assert again == (work / "runs" / "two" / "eval" / "results.json").read_bytes()
    assert not list((tmp_path / "runs").rglob("job.*"))


@pytest.mark.parametrize(
    ("more", "rule"),
    [
        ("eval.models.plain.beyond_window=false", r"eval\.models\.plain has a window of 256"),
        ("eval.models.x.path=./nowhere", r"eval\.models\.x\.path is \./nowhere; "),
        ("eval.models.linear.rope={other}", r"eval\.models\.linear\.rope is rope\.json; .*other"),
        ("eval.models.x.path={corpus}", r"^eval\.models\.x\.path is corpus; it has no config"),
        ("eval.models.linear.rope=none.json", r"linear\.rope is none\.json; .*no such file"),
        (
            "eval.models.linear.rope={broken}",
            r"^eval\.models\.linear\.rope is broken\.json; it must be a rope\.json",
        ),
    ],
)
def test_what_cannot_be_measured_is_told_before_the_data(
    work: Path, tmp_path: Path, more: str, rule: str
) -> None:
    (tmp_path / "broken.json").write_text("{}")
    if "{other}" in more:
        main(["rope", *of_another_base(tmp_path)])
    other = tmp_path / "other" / "rope.json"
    more = more.format(other=other, broken=tmp_path / "broken.json", corpus=work / "corpus")
    with pytest.raises(ConfigError, match=rule):
        stages.check(compose(words(work, f"runs_dir={tmp_path}", more), "eval"), "eval")


def test_the_model_that_stands_first_is_refused_in_its_own_words(
    work: Path, tmp_path: Path
) -> None:
    """The stages before eval read its config and tokenizer as those of `model`."""
    first = [word for word in words(work, f"runs_dir={tmp_path}") if "eval.models" not in word]
    named = f"eval.models.x.path={work / 'corpus'}"
    with pytest.raises(ConfigError, match=r"^eval\.models\.x\.path is corpus; it has no config"):
        stages.check(compose([*first, named], "eval"), "eval")


def test_a_linear_rope_may_stand_first(work: Path, tmp_path: Path) -> None:
    """Nothing is scaled on top of it, so nobody needs the window from which it was."""
    first = [word for word in words(work, f"runs_dir={tmp_path}") if "models.plain" not in word]
    stages.check(compose(first, "eval"), "eval")


def of_another_base(folder: Path) -> list[str]:
    scratch = [
        "vocab_size=300", "hidden_size=48", "intermediate_size=64", "num_hidden_layers=1",
        "num_attention_heads=2", "num_key_value_heads=1", "max_position_embeddings=256",
    ]  # fmt: skip
    sizes = [f"model.scratch.{size}" for size in scratch]
    return [*sizes, "name=other", "rope.factor=2", f"runs_dir={folder}"]


def test_a_dry_run_without_data_says_what_makes_them(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`ropewalk data` with the same settings; the evaluation then skips them."""
    command = words(work, f"runs_dir={tmp_path}")
    main(["eval", *command, "--dry-run"])
    assert "run ropewalk data with these settings" in capsys.readouterr().out
    main(["data", *command])
    capsys.readouterr()
    main(["eval", *command, "--dry-run"])
    assert "plain: 8 requests" in capsys.readouterr().out
    main(["eval", *command])
    assert "data: done before with the same settings and inputs; skipped" in capsys.readouterr().out


def test_a_dry_run_tells_the_cost_and_loads_no_model(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ropewalk.train.model.build.build", no_model)
    main(["eval", *words(work, "eval.passkey_tries=3"), "--dry-run"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("eval: ")]
    per_column = [line for line in lines if "requests" in line]
    assert [line.split(": ")[1] for line in per_column] == ["plain", "linear"]
    assert all("8 of them in the cache; " in line for line in per_column), per_column
    assert "s for all columns" in lines[-1]
