"""All stages through the command line on a tiny corpus, compared with transformers."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
from commands import ENV, command, corpus, ropewalk

LONG = ["train.steps=40", "train.schedule.kind=constant"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with the corpus."""
    folder = tmp_path_factory.mktemp("work")
    corpus(folder)
    return folder


@pytest.fixture(scope="module")
def run(work):
    ropewalk(work, "run", "name=first")
    return work / "runs" / "first"


def losses(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def test_artifacts_have_the_promised_keys(run):
    rope = json.loads((run / "rope.json").read_text())
    assert {"method", "factor", "inv_freq", "attention_factor"} <= set(rope)
    assert {"rope_parameters", "hash", "max_position_embeddings"} <= set(rope)
    results = json.loads((run / "eval" / "results.json").read_text())
    assert list(results["models"]) == ["base", "rescaled", "extended"]
    for model in results["models"].values():
        assert {"nll_by_position", "perplexity", "passkey", "context_gain"} <= set(model)
    rows = [json.loads(line) for line in (run / "train" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    expected = {"loss", "grad_norm", "lr", "tokens", "sequences"}
    expected |= {"tokens_per_s", "step_time_s", "peak_memory_bytes"}
    assert all(expected <= set(row) for row in rows)
    assert (run / "report" / "index.html").stat().st_size > 10_000


def test_no_artifact_names_a_folder_of_the_user(run, work):
    """Only the frozen config has paths."""
    for file in run.rglob("*"):
        if file.is_file() and file.suffix in (".json", ".jsonl"):
            assert str(work) not in file.read_text(), file


def test_two_ranks_that_share_each_sequence_give_the_losses_of_one(run, work):
    """Through the launcher, at ZeRO 3: partitioned parameters, a sequence in two slices."""
    arguments = (
        "train.launcher.ranks_per_node=2",
        "train.sp_size=2",
        "train.zero_stage=3",
        "train.micro_batch_size=2",
    )
    output = ropewalk(work, "train", "name=shared", *arguments)
    assert "1 group(s) of 2 ranks" in output and "ZeRO 3" in output
    shared = losses(work / "runs" / "shared" / "train")
    assert shared == pytest.approx(losses(run / "train"), rel=1e-5) and len(shared) == 4


def test_a_second_run_skips_every_stage_and_reports_it(run, work):
    mtimes = {
        p: p.stat().st_mtime_ns
        for p in run.rglob("*")
        if p.is_file() and p.name not in ("manifest.json", "config.yaml")
    }
    output = ropewalk(work, "run", "name=first")
    for stage in ("rope", "data", "train", "eval", "report"):
        assert f"{stage}: done before with the same settings and inputs; skipped" in output
    assert mtimes == {p: p.stat().st_mtime_ns for p in mtimes}


def exported_logits(run):
    """Logits by transformers in another process in which ropewalk cannot be imported."""
    script = """
import json, sys, torch
sys.modules["ropewalk"] = None
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
ids = torch.arange(500)[None] % 700 + 5
with torch.no_grad():
    torch.save(model(input_ids=ids).logits[0], sys.argv[2])
"""
    logits_path = run / "logits.pt"
    subprocess.run(
        [sys.executable, "-c", script, str(run / "train" / "model"), str(logits_path)],
        env=ENV,
        check=True,
        timeout=300,
    )
    import torch

    return torch.load(logits_path)


def test_export_gives_the_same_logits_in_transformers(run):
    import packed_pass
    import torch

    from ropewalk.data.dataset import concatenate
    from ropewalk.train.model.build import load_trained
    from ropewalk.train.rope.plan import RopePlan

    plan = RopePlan.read(run / "rope.json")
    model = load_trained(run / "train" / "model", plan, dtype=torch.float32)
    ids = (torch.arange(500) % 700 + 5).numpy()
    logits = packed_pass.logits(model, concatenate([ids], 500))
    torch.testing.assert_close(logits, exported_logits(run), atol=1e-5, rtol=1e-5)


def test_export_of_an_untrained_run_equals_the_base_rescaled_by_transformers(work):
    """The oracle has the shipped weights and transformers' YaRN parameters written by hand."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from ropewalk.train.base import BASES

    ropewalk(work, "train", "name=untrained", "train.steps=0")
    config = AutoConfig.from_pretrained(BASES / "demo")
    config.rope_parameters = {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 2.0,
        "original_max_position_embeddings": 256,
    }
    config.max_position_embeddings = 512
    model = AutoModelForCausalLM.from_pretrained(BASES / "demo", config=config, dtype=torch.float32)
    with torch.no_grad():
        expected = model(input_ids=torch.arange(500)[None] % 700 + 5).logits[0]
    logits = exported_logits(work / "runs" / "untrained")
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


def test_perplexity_equals_a_transformers_loop(run, work):
    import torch
    import torch.nn.functional as F
    from transformers import AutoModelForCausalLM

    from ropewalk.data.dataset import DataArtifacts, HeldoutText

    store = DataArtifacts.of(run, work / "cache").store("stdlib")
    windows = HeldoutText({"stdlib": store}).windows(512, 4, 2)
    model = AutoModelForCausalLM.from_pretrained(run / "train" / "model", dtype=torch.float32)
    total, count = {256: 0.0, 512: 0.0}, {256: 0, 512: 0}
    for window in windows:
        ids = torch.from_numpy(window.ids)[None]
        for length in total:
            with torch.no_grad():
                logits = model(input_ids=ids[:, :length]).logits
            labels = ids[0, 1:length]
            total[length] += F.cross_entropy(logits[0, :-1], labels, reduction="sum").item()
            count[length] += length - 1
    models = json.loads((run / "eval" / "results.json").read_text())["models"]
    for length in total:
        expected = torch.tensor(total[length] / count[length]).exp().item()
        assert models["extended"]["perplexity"][str(length)] == pytest.approx(expected, rel=1e-4)


def test_changing_lr_redoes_train_and_the_stages_after_it_but_not_data(run, work):
    try:
        output = ropewalk(work, "run", "name=first", "train.optimizer.lr=5e-4")
    finally:
        restored = ropewalk(work, "run", "name=first")  # for the other tests
    unchanged = "done before with the same settings and inputs"
    assert all(f"{stage}: {unchanged}; skipped" in output for stage in ("data", "rope"))
    assert "redone: train.optimizer.lr was 0.001, is 0.0005" in output
    assert all(f"{stage}: done in" in output for stage in ("train", "eval", "report"))
    assert all(f"{stage}: {unchanged}; brought back" in restored for stage in ("train", "eval"))


@pytest.mark.parametrize(
    ("processes", "stage"), [pytest.param(2, 1, marks=pytest.mark.slow), (2, 3)]
)
def test_ranks_and_zero_stages_give_the_losses_of_one_process(run, work, processes, stage):
    name = f"ranks-{processes}-{stage}"
    overrides = [f"train.launcher.ranks_per_node={processes}", f"train.zero_stage={stage}"]
    ropewalk(work, "train", f"name={name}", *overrides)
    assert losses(work / "runs" / name / "train") == pytest.approx(losses(run / "train"), rel=1e-5)


def exit_code_after_signal(work, name, number):
    """The exit code of a long run that gets a signal after its second checkpoint."""
    process = subprocess.Popen(
        command(work, "train", f"name={name}", *LONG),
        env=ENV,
        cwd=work,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    metrics = work / "runs" / name / "train.tmp" / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while not (metrics.is_file() and metrics.read_text().count("\n") >= 5):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    if number == signal.SIGKILL:  # the training's own process group, ranks included
        pids = [child.pid for child in psutil.Process(process.pid).children()]
        (leader,) = [pid for pid in pids if os.getpgid(pid) == pid]
        os.killpg(leader, number)
    else:
        process.send_signal(number)
    return process.wait(timeout=240)


@pytest.fixture(scope="module")
def uninterrupted(work):
    ropewalk(work, "train", "name=uninterrupted", *LONG)
    return losses(work / "runs" / "uninterrupted" / "train")


@pytest.mark.parametrize(
    ("number", "code"),
    [pytest.param(signal.SIGTERM, 75, marks=pytest.mark.slow), (signal.SIGKILL, 1)],
)
def test_an_interrupted_run_resumes_bit_for_bit(work, uninterrupted, number, code):
    name = f"cut-{number.name}"
    assert exit_code_after_signal(work, name, number) == code
    output = ropewalk(work, "train", f"name={name}", *LONG)
    assert "resumed at step" in output
    assert losses(work / "runs" / name / "train") == uninterrupted


@pytest.mark.parametrize("stage", [pytest.param(0, marks=pytest.mark.slow), 3])
def test_ranks_that_share_the_measurements_give_the_results_of_one_process(run, work, stage):
    """Through the launcher; at 3 the weights are partitioned over the ranks."""
    expected = json.loads((run / "eval" / "results.json").read_text())
    shutil.rmtree(run / "eval")
    shutil.rmtree(work / "cache" / "eval")  # or nothing is measured
    arguments = ("eval.ranks_per_node=2", f"eval.zero_stage={stage}")
    output = ropewalk(work, "eval", "name=first", *arguments)
    assert [output.count(f"eval: {label} measured") for label in expected["models"]] == [1, 1, 1]
    names = sorted(path.name for path in (run / "eval").iterdir())
    assert names == ["manifest.json", "results.json", "samples"]
    result = json.loads((run / "eval" / "results.json").read_text())
    assert_close(result, expected)
    assert "skipped" in ropewalk(work, "eval", "name=first", "eval.ranks_per_node=1")


def assert_close(result, expected):
    """The same keys and texts; numbers to 1e-6."""
    if isinstance(expected, dict):
        assert list(result) == list(expected)
        for key in expected:
            assert_close(result[key], expected[key])
    elif isinstance(expected, list):
        assert len(result) == len(expected)
        for pair in zip(result, expected, strict=True):
            assert_close(*pair)
    elif isinstance(expected, float):
        assert result == pytest.approx(expected, rel=1e-6, abs=1e-6)
    else:
        assert result == expected
