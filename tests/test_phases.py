"""Phases through the command line: trainings of one model in turn, each under its rope plan."""

import json
import subprocess
import time

import numpy as np
import psutil
import pytest
import torch
import torch.nn.functional as F
from commands import ENV, command, corpus, ropewalk

TWO = (
    "phases=[{name: short, data.seq_len: 512, rope.factor: 2, train.mixed_windows: true, "
    "train.global_batch_tokens: 8192, train.loss.z_loss: 1e-3}, "
    "{name: long, data.seq_len: 1024, rope.factor: 4, train.optimizer.lr: 5e-4, train.steps: 3, "
    "carry_optimizer: true}]"
)
STEPS = [
    "train.steps=2",
    "train.checkpoint.interval_steps=1",
    "eval.passkey_tries=1",
    "eval.passkey_lengths=[256]",
]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    corpus(folder)
    return folder


@pytest.fixture(scope="module")
def output(work):
    return ropewalk(work, "run", "name=two", TWO, *STEPS)


@pytest.fixture(scope="module")
def run(work, output):
    return work / "runs" / "two"


def metrics_of(folder):
    lines = (folder / "train" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def transformers_model(model_dir, factor):
    """Transformers' YaRN from the original window of 256 tokens; no scaling for a factor of 1."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(model_dir)
    config.rope_parameters = {"rope_type": "default", "rope_theta": 10000.0}
    if factor > 1:
        config.rope_parameters |= {"rope_type": "yarn", "factor": float(factor)}
        config.rope_parameters["original_max_position_embeddings"] = 256
    config.max_position_embeddings = 256 * factor
    return AutoModelForCausalLM.from_pretrained(
        model_dir, config=config, dtype=torch.float32, attn_implementation="eager"
    )


def test_plan_of_the_second_phase_starts_from_the_original_window(run):
    from ropewalk.train.base import BASES

    plan = json.loads((run / "rope.json").read_text())
    expected = transformers_model(BASES / "demo", 4).model.rotary_emb
    np.testing.assert_allclose(plan["inv_freq"], expected.inv_freq.numpy(), rtol=1e-6)
    assert plan["attention_factor"] == pytest.approx(expected.attention_scaling)
    assert plan["original_max_position_embeddings"] == 256
    assert plan["max_position_embeddings"] == 1024


def separate_documents(sequences, numbers, model_of):
    """(mean cross-entropy, mean logsumexp^2) of sequences, one forward pass for each document.

    `model_of(length)` is the model for a document.
    """
    entropy, squares, count = 0.0, 0.0, 0
    for row in (sequences[number] for number in numbers):
        ends = row.cu_seqlens.tolist()
        for low, high in zip(ends, ends[1:], strict=False):
            labels = torch.from_numpy(row.labels[low:high])
            ids = torch.from_numpy(row.input_ids[low:high])[None]
            with torch.no_grad():
                logits = model_of(high - low)(input_ids=ids).logits[0]
            entropy += F.cross_entropy(logits, labels, reduction="sum", ignore_index=-100).item()
            squares += torch.logsumexp(logits[labels != -100], -1).square().sum().item()
            count += int((labels != -100).sum())
    return entropy / count, squares / count


def first_step(folder, cache):
    from ropewalk.data.dataset import DataArtifacts

    return DataArtifacts.of(folder, cache).sequences(), metrics_of(folder)[0]


def test_second_phase_starts_from_the_weights_of_the_first(run, work):
    """Its first loss equals the first phase's export under the new table, in transformers."""
    sequences, first = first_step(run, work / "cache")
    model = transformers_model(run / "phases" / "1-short" / "train" / "model", 4)
    entropy, _ = separate_documents(sequences, first["sequences"], lambda length: model)
    assert first["loss"] == pytest.approx(entropy, rel=1e-5)
    assert "z_loss" not in first


def test_first_phase_uses_the_base_s_table_for_short_documents_and_logs_the_z_loss(run, work):
    from ropewalk.train.base import BASES

    sequences, first = first_step(run / "phases" / "1-short", work / "cache")
    short, long = (transformers_model(BASES / "demo", factor) for factor in (1, 2))
    numbers = first["sequences"]
    entropy, squares = separate_documents(
        sequences, numbers, lambda length: short if length <= 256 else long
    )
    scaled_entropy, _ = separate_documents(sequences, numbers, lambda length: long)
    assert first["loss"] == pytest.approx(entropy, rel=1e-5)
    assert first["z_loss"] == pytest.approx(1e-3 * squares, rel=1e-3)
    assert entropy != pytest.approx(scaled_entropy, rel=1e-5)


def test_lines_name_their_phase_and_steps_begin_anew(run):
    short, long = metrics_of(run / "phases" / "1-short"), metrics_of(run)
    assert [(row["phase"], row["step"]) for row in short] == [(1, 1), (1, 2)]
    assert [(row["phase"], row["step"]) for row in long] == [(2, 1), (2, 2), (2, 3)]
    assert (max(row["lr"] for row in short), max(row["lr"] for row in long)) == (1e-3, 5e-4)


def test_tokens_are_written_once_and_all_plans_exist_before_the_first_step(output):
    skipped = "tokens of stdlib: done before with the same settings and inputs; skipped"
    assert output.count("tokens of stdlib: done in") == output.count(skipped) == 1
    assert "optimizer: moments and fp32 weights of 1-short, step 2" in output
    plan, training = "phase 2/2 (long): data: done", "phase 1/2 (short): training"
    assert output.index(plan) < output.index(training)


def test_page_and_manifest_show_both_phases(run):
    page = (run / "report" / "index.html").read_text()
    assert ">1-short</th>" in page and ">two</th>" in page and ">5</dd>" in page  # 2 + 3 steps
    (earlier,) = json.loads((run / "manifest.json").read_text())["phases"]
    assert earlier["name"] == "1-short" and set(earlier["stages"]) == {"rope", "data", "train"}
    results = json.loads((run / "eval" / "results.json").read_text())
    assert list(results["models"]) == ["base", "rescaled", "extended"]
    assert results["base_window"] == 256


def test_another_lr_in_the_second_phase_redoes_it_alone(run, work):
    output = ropewalk(work, "train", "name=two", TWO.replace("5e-4", "6e-4"), *STEPS)
    skipped = "train: done before with the same settings and inputs; skipped"
    assert f"phase 1/2 (short): {skipped}" in output
    assert "phase 2/2 (long): train: done in" in output
    assert "redone: train.optimizer.lr was 0.0005, is 0.0006" in output


def test_a_window_that_shrinks_is_refused_before_a_token_is_read(work):
    arguments = command(work, "train", "name=less", "phases=[{rope.factor: 4}, {rope.factor: 2}]")
    process = subprocess.run(
        arguments, env=ENV, cwd=work, capture_output=True, text=True, timeout=300
    )
    assert process.returncode == 2
    rule = "its window of 512 tokens must be at least that of the phase before, 1024"
    assert f"phases[1].rope.factor is 2.0; {rule}" in process.stderr
    assert "tokens of" not in process.stdout


def kill_at(work, name, folder, rows):
    """Kill the run and its ranks once `folder` has `rows` lines of metrics."""
    arguments = command(work, "train", f"name={name}", TWO, *STEPS, "train.steps=12")
    process = subprocess.Popen(
        arguments, env=ENV, cwd=work, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    metrics = work / "runs" / name / folder / "train.tmp" / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while not (metrics.is_file() and metrics.read_text().count("\n") >= rows):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    parent = psutil.Process(process.pid)
    for child in [*parent.children(recursive=True), parent]:
        child.kill()
    process.wait(timeout=60)


@pytest.mark.slow
def test_a_run_killed_in_each_phase_ends_with_the_losses_of_an_uninterrupted_one(work):
    ropewalk(work, "train", "name=uninterrupted", TWO, *STEPS, "train.steps=12")
    kill_at(work, "cut", "phases/1-short", 4)
    kill_at(work, "cut", ".", 2)
    output = ropewalk(work, "train", "name=cut", TWO, *STEPS, "train.steps=12")
    assert "phase 1/2 (short): train: done before" in output and "resumed at step" in output
    for folder in ("phases/1-short", "."):
        runs = (work / "runs" / name / folder for name in ("uninterrupted", "cut"))
        expected, resumed = map(metrics_of, runs)
        assert [row["loss"] for row in expected] == [row["loss"] for row in resumed]
