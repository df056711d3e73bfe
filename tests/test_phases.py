"""Phases through the command line: each is the next training of one model, under a plan of its own."""

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
    "phases=[{name: short, data.seq_len: 512, rope.factor: 2, train.mixed_windows: true, train.loss.z_loss: 1e-3}, "
    "{name: long, data.seq_len: 1024, rope.factor: 4, train.optimizer.lr: 5e-4, train.steps: 3, carry_optimizer: true}]"
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


def lines(folder):
    return [
        json.loads(line) for line in (folder / "train" / "metrics.jsonl").read_text().splitlines()
    ]


def of_transformers(model_dir, factor):
    """Plain transformers with YaRN from the original window of 256 tokens, in its own words; no scaling for a factor of 1."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(model_dir)
    config.rope_parameters = {"rope_type": "default", "rope_theta": 10000.0}
    if factor > 1:
        yarn = {
            "rope_type": "yarn",
            "factor": float(factor),
            "original_max_position_embeddings": 256,
        }
        config.rope_parameters |= yarn
    config.max_position_embeddings = 256 * factor
    return AutoModelForCausalLM.from_pretrained(
        model_dir, config=config, dtype=torch.float32, attn_implementation="eager"
    )


def test_plan_of_the_second_phase_is_that_of_the_original_window(run):
    from ropewalk.train.base import BASES

    plan = json.loads((run / "rope.json").read_text())
    expected = of_transformers(BASES / "demo", 4).model.rotary_emb
    np.testing.assert_allclose(plan["inv_freq"], expected.inv_freq.numpy(), rtol=1e-6)
    assert plan["attention_factor"] == pytest.approx(expected.attention_scaling)
    assert (plan["original_max_position_embeddings"], plan["max_position_embeddings"]) == (
        256,
        1024,
    )


def alone(sequences, numbers, model_of):
    """(mean cross-entropy, mean logsumexp^2) of sequences, each document by itself in the model that `model_of(length)` gives."""
    entropy, squares, count = 0.0, 0.0, 0
    for row in (sequences[number] for number in numbers):
        ends = row.cu_seqlens.tolist()
        for low, high in zip(ends, ends[1:], strict=False):
            labels = torch.from_numpy(row.labels[low:high])
            with torch.no_grad():
                logits = model_of(high - low)(
                    input_ids=torch.from_numpy(row.input_ids[low:high])[None]
                ).logits[0]
            entropy += F.cross_entropy(logits, labels, reduction="sum", ignore_index=-100).item()
            squares += torch.logsumexp(logits[labels != -100], -1).square().sum().item()
            count += int((labels != -100).sum())
    return entropy / count, squares / count


def first_step(folder, cache):
    from ropewalk.data.dataset import DataArtifacts

    return DataArtifacts.of(folder, cache).sequences(), lines(folder)[0]


def test_second_phase_starts_from_the_weights_of_the_first(run, work):
    """Its first loss is that of the first phase's export under the new table, in plain transformers."""
    sequences, first = first_step(run, work / "cache")
    model = of_transformers(run / "phases" / "1-short" / "train" / "model", 4)
    assert first["loss"] == pytest.approx(
        alone(sequences, first["sequences"], lambda length: model)[0], rel=1e-5
    )
    assert "z_loss" not in first


def test_first_phase_reads_short_documents_with_the_base_s_table_and_tells_the_z_loss(run, work):
    from ropewalk.train.base import BASES

    sequences, first = first_step(run / "phases" / "1-short", work / "cache")
    short, long = (of_transformers(BASES / "demo", factor) for factor in (1, 2))
    entropy, squares = alone(
        sequences, first["sequences"], lambda length: short if length <= 256 else long
    )
    assert first["loss"] == pytest.approx(entropy, rel=1e-5)
    assert first["z_loss"] == pytest.approx(1e-3 * squares, rel=1e-3)
    assert entropy != pytest.approx(
        alone(sequences, first["sequences"], lambda length: long)[0], rel=1e-5
    )


def test_lines_name_their_phase_and_steps_begin_anew(run):
    short, long = lines(run / "phases" / "1-short"), lines(run)
    assert [(row["phase"], row["step"]) for row in short] == [(1, 1), (1, 2)]
    assert [(row["phase"], row["step"]) for row in long] == [(2, 1), (2, 2), (2, 3)]
    assert (max(row["lr"] for row in short), max(row["lr"] for row in long)) == (1e-3, 5e-4)


def test_tokens_are_written_once_and_all_plans_stand_before_the_first_step(output):
    assert output.count("tokens of stdlib: done in") == 1
    assert (
        output.count("tokens of stdlib: done before with the same settings and inputs; skipped")
        == 1
    )
    assert "optimizer: moments and fp32 weights of 1-short, step 2" in output
    assert output.index("phase 2/2 (long): data: done") < output.index(
        "phase 1/2 (short): training"
    )


def test_page_and_manifest_tell_of_both(run):
    page = (run / "report" / "index.html").read_text()
    assert ">1-short</th>" in page and ">two</th>" in page and ">5</dd>" in page  # 2 + 3 steps
    (earlier,) = json.loads((run / "manifest.json").read_text())["phases"]
    assert earlier["name"] == "1-short" and set(earlier["stages"]) == {"rope", "data", "train"}
    models = json.loads((run / "eval" / "results.json").read_text())
    assert (
        list(models["models"]) == ["base", "rescaled", "extended"] and models["base_window"] == 256
    )


def test_another_lr_in_the_second_phase_redoes_it_alone(run, work):
    output = ropewalk(work, "train", "name=two", TWO.replace("5e-4", "6e-4"), *STEPS)
    assert (
        "phase 1/2 (short): train: done before with the same settings and inputs; skipped" in output
    )
    assert (
        "phase 2/2 (long): train: done in" in output
        and "redone: train.optimizer.lr was 0.0005, is 0.0006" in output
    )


def test_a_window_that_shrinks_is_refused_before_a_token_is_read(work):
    arguments = command(work, "train", "name=less", "phases=[{rope.factor: 4}, {rope.factor: 2}]")
    done = subprocess.run(arguments, env=ENV, cwd=work, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert (
        "phases[1].rope.factor is 2.0; its window of 512 tokens must be at least that of the phase before, 1024"
        in (done.stderr)
    )
    assert "tokens of" not in done.stdout


def kill_at(work, name, folder, rows):
    """SIGKILL to everything once `folder` has written so many lines."""
    arguments = command(work, "train", f"name={name}", TWO, *STEPS, "train.steps=12")
    process = subprocess.Popen(
        arguments, env=ENV, cwd=work, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    metrics, deadline = (
        work / "runs" / name / folder / "train.tmp" / "metrics.jsonl",
        time.monotonic() + 240,
    )
    while not (metrics.is_file() and metrics.read_text().count("\n") >= rows):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    for child in [
        *psutil.Process(process.pid).children(recursive=True),
        psutil.Process(process.pid),
    ]:
        child.kill()
    process.wait(timeout=60)


@pytest.mark.slow
def test_a_run_that_was_killed_in_each_phase_ends_as_the_uninterrupted_one(work):
    ropewalk(work, "train", "name=whole", TWO, *STEPS, "train.steps=12")
    kill_at(work, "cut", "phases/1-short", 4)
    kill_at(work, "cut", ".", 2)
    output = ropewalk(work, "train", "name=cut", TWO, *STEPS, "train.steps=12")
    assert "phase 1/2 (short): train: done before" in output and "resumed at step" in output
    for folder in ("phases/1-short", "."):
        expected, resumed = (lines(work / "runs" / name / folder) for name in ("whole", "cut"))
        assert [row["loss"] for row in expected] == [row["loss"] for row in resumed]
