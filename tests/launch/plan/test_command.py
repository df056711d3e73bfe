"""`ropewalk plan` from the command line to what it prints, with real traces of a small model."""

import contextlib
import io
import json
import resource
from pathlib import Path
from typing import Any

import pytest
from planning_points import config_of

from ropewalk.launch.cli import main
from ropewalk.launch.plan import correction, text
from ropewalk.launch.plan.correction import Correction

MODEL = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 12,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
}
LAYER = 2 * 1024 * 1024 + 2 * 1024 * 512 + 3 * 1024 * 2816 + 2 * 1024
BATCH = 2 * 32768
P = 12 * LAYER + 2 * 32000 * 1024 + 1024
CONTRACT = {
    *("schema", "verdict", "peak_bytes", "components", "host_bytes", "disk_bytes", "step_s"),
    *("tokens_per_s", "mfu", "changes"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    (folder / "config.json").write_text(json.dumps(MODEL))
    return folder


def plan(model: Path, *words: str) -> str:
    """What it prints."""
    settings = ["rope=yarn", "rope.factor=4", "train.zero_stage=2", "train.steps=10"]
    settings.append(f"train.global_batch_tokens={BATCH}")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        main(["plan", f"model.path={model}", *settings, "--gpus", "2", *words])
    return printed.getvalue()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages") / "new" / "plan.html"


@pytest.fixture(scope="module")
def answer(model: Path, page: Path) -> dict[str, Any]:
    words = ["data.seq_len=32768", "--hardware", "rtx4090", "--json", "--page", str(page)]
    plain: dict[str, Any] = json.loads(plan(model, *words))
    return plain


def test_the_plan_as_json(answer: dict[str, Any], page: Path) -> None:
    assert set(answer) >= CONTRACT and answer["schema"] == 1
    assert answer["verdict"] == "fits"
    assert answer["components"]["parameters"] == pytest.approx(2 * P, rel=1e-3)
    assert answer["components"]["optimizer"] == pytest.approx(12 * P / 2, rel=1e-3)
    peak = answer["peak_bytes"]
    assert sum(answer["components"].values()) == peak["allocated"] <= peak["expandable"]
    assert answer["disk_bytes"] == 2 * P + 12 * P * 1 + 4 * 10 * BATCH
    step = answer["step_s"]
    assert step["low"] < step["likely"] < step["high"]
    assert answer["tokens_per_s"] == pytest.approx(BATCH / step["likely"])
    drawn = page.read_text()
    assert "<svg" in drawn and "gradient buckets" in drawn and "can be used" in drawn
    assert text.phase_text(answer | {"hardware": "rtx4090"}) in drawn.replace("&#x27;", "'")


def test_a_table_over_lengths(model: Path) -> None:
    printed = plan(model, "--hardware", "rtx4090", "--for", "8192,1048576")
    head, short, long = printed.splitlines()
    assert head.split()[:3] == ["tokens", "GPUs", "tensors"]
    assert short.split()[0] == "8,192" and short.endswith("  fits")
    assert long.split()[0] == "1,048,576" and not long.endswith("  fits")


def test_a_correction_is_applied_and_said(
    answer: dict[str, Any], model: Path, tmp_path: Path
) -> None:
    words = ["data.seq_len=32768", "--hardware", "rtx4090", f"cache_dir={tmp_path}"]
    before = answer
    assert "correction" not in before
    measured = Correction("rtx4090", "2026-11-30", 2, 32768, 1, 2, 2**30 / 32768, 1.5)
    correction.keep(tmp_path, measured)
    after = json.loads(plan(model, *words, "--json"))
    grown = after["peak_bytes"]["allocated"] - before["peak_bytes"]["allocated"]
    assert grown == 2**30 == after["components"][correction.COMPONENT]
    assert after["step_s"]["likely"] == pytest.approx(1.5 * before["step_s"]["likely"])
    shown = text.phase_text(after | {"hardware": "rtx4090"})
    assert f"corrected for this machine by {measured}" in shown
    rows = plan(model, *words[1:], "--for", "8192").splitlines()
    assert len(rows) == 3 and rows[-1] == f"corrected for this machine by {measured}"
    words[2] = "h100"
    assert "correction" not in json.loads(plan(model, *words, "--json"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--hardware", "h900", "data.seq_len=4096"], "--hardware is h900; it must be one of"),
        (["--hardware", "h100"], "data.seq_len is not set"),
    ],
)
def test_refusals(
    capsys: pytest.CaptureFixture[str], model: Path, words: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        plan(model, *words)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_million_tokens_on_eight_gpus_end_in_a_plan_that_fits(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """8B, 1M tokens, 8 x H100, nothing else set: at most three minutes of CPU."""
    config = config_of("llama_8b") | {"max_position_embeddings": 131_072}
    (tmp_path / "config.json").write_text(json.dumps(config))
    words = ["data.seq_len=1048576", "train.global_batch_tokens=8388608", "train.steps=200"]
    words += [f"model.path={tmp_path}", "rope=yarn", "rope.factor=8"]
    before = cpu_seconds()
    main(["plan", *words, "--hardware", "h100", "--gpus", "8", "--json"])
    assert cpu_seconds() - before < 180
    printed = capsys.readouterr()
    answer = json.loads(printed.out)
    assert answer["verdict"] == "does_not_fit" and answer["changed"]["verdict"] == "fits"
    assert answer["changed"]["peak_bytes"]["expandable"] * 1.1 <= answer["usable_bytes"]
    assert {"train.zero_stage=3", "train.sp_size=8"} <= set(answer["changes"])
    assert printed.err.count("try ") >= len(answer["changes"])


def cpu_seconds() -> float:
    """Of all children that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
