"""How long a checkpoint stalls the training, and how long a resumed run takes to start."""

import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import common
import startup
from train_settings import train_config

from ropewalk.train.zero.mesh import start_distributed

COPY = "a plain copy (clone) of the same tensors in host memory"
SAVE = "DeepSpeed's own save_checkpoint of the same engine, without a sync to disk"
COLD = "the same command with nothing trained yet"
SHAPE = {
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 8,
    "vocab_size": 16_384,
}

# -- in the parent ---------------------------------------------------------------------------------


def checkpoint_stall(quick: bool) -> list[dict[str, Any]]:
    """Seconds that a save stalls the training, beside the copy that every save needs."""
    seconds = common.alone(lambda: common.child("checkpointing:stalls", quick=quick))
    ours, copy, save = (common.median(seconds[name]) for name in ("ours", "copy", "plain"))
    details = {
        "gib": round(seconds["bytes"] / 2**30, 3),
        "first": seconds["first"],
        "of_rounds": common.spread(seconds["ours"]),
    }
    return [
        common.result(
            "checkpoint_stall", ours, "s", peer=COPY, peer_value=copy, bar="ratio <= 1.1", **details
        ),
        common.result(
            "checkpoint_stall_beside_save", ours, "s", peer=SAVE, peer_value=save, **details
        ),
    ]


def resume_to_first_step(quick: bool) -> list[dict[str, Any]]:
    """Seconds to the first new line of metrics.jsonl: a cold start, and a resume after a stop."""
    recipe, _ = startup._recipe()
    overrides = [
        f"recipe={recipe}",
        "data.total_tokens=200000",
        "train.steps=2000",
        "train.schedule.warmup_steps=0",
        "train.metrics.wandb=off",
    ]
    with tempfile.TemporaryDirectory() as folder:
        overrides += ["name=start", f"runs_dir={folder}/runs", f"cache_dir={folder}/cache"]
        startup._end(startup._ropewalk("data", overrides, folder), folder)
        run = Path(folder) / "runs" / "start"
        arms = {
            "cold": lambda: _to_next_line(overrides, run, folder, cold=True),
            "resumed": lambda: _to_next_line(overrides, run, folder),
        }
        runs = common.alternate(1 if quick else 3, arms)
    cold, resumed = (common.median(runs[side]) for side in ("cold", "resumed"))
    more = {"recipe": recipe, "of_rounds": common.spread(runs["resumed"])}
    return [
        common.result(
            "resume_to_first_step",
            resumed,
            "s",
            peer=COLD,
            peer_value=cold,
            bar="ratio <= 1.3",
            **more,
        )
    ]


def _to_next_line(overrides: list[str], run: Path, folder: str, cold: bool = False) -> float:
    """Seconds to the next line of metrics.jsonl; then SIGTERM makes the run save and stop."""
    if cold:
        shutil.rmtree(run / "train.tmp", ignore_errors=True)
    metrics = run / "train.tmp" / "metrics.jsonl"
    lines_before, started = _lines(metrics), time.perf_counter()
    process = startup._ropewalk("train", overrides, folder)
    while process.poll() is None and _lines(metrics) <= lines_before:
        if time.perf_counter() - started > startup.WAIT:
            break
        time.sleep(0.02)
    seconds = time.perf_counter() - started
    process.send_signal(signal.SIGTERM)
    if process.wait() != 75:
        output = startup._output(folder).read_text()[-1000:]
        raise RuntimeError(f"ropewalk: exit code {process.returncode}\n{output}")
    return seconds


def _lines(metrics: Path) -> int:
    return metrics.read_text().count("\n") if metrics.is_file() else 0


# -- in the child ----------------------------------------------------------------------------------


def stalls(quick: bool) -> dict[str, Any]:
    """Seconds of the stall by method and round. Our writer finishes between the rounds."""
    from ropewalk.train.checkpoint.checkpointer import Checkpointer, TrainState
    from ropewalk.train.zero.mesh import Mesh

    live, torch_engine = _engine()
    results: dict[str, Any] = {"ours": [], "copy": [], "plain": []}
    with tempfile.TemporaryDirectory(dir=".") as folder:
        keeper = Checkpointer(
            live, Path(folder) / "ours", train_config(steps=1, optimizer__lr=1e-3), Mesh()
        )
        for number in range(2 if quick else 6):
            keeper.save(TrainState(number + 1))
            results["ours"].append(keeper.save_stall_s)
            keeper.wait()
            tensors = keeper.writer.buffers.in_use
            started = time.perf_counter()
            copies = [tensor.clone() for tensor in tensors]
            results["copy"].append(time.perf_counter() - started)
            results["bytes"] = sum(tensor.nbytes for tensor in copies)
            del copies
            our_engine, live.checkpoint_engine = live.checkpoint_engine, torch_engine
            started = time.perf_counter()
            live.save_checkpoint(str(Path(folder) / "plain"), tag="plain", save_latest=False)
            results["plain"].append(time.perf_counter() - started)
            live.checkpoint_engine = our_engine
    # the first save allocates the pages of its buffers
    results["first"] = results["ours"].pop(0)
    return results


def _engine() -> tuple[Any, Any]:
    """An engine of 40 million parameters after one step, and DeepSpeed's checkpoint engine."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from ropewalk.launch.config.compose import compose
    from ropewalk.train import attention
    from ropewalk.train.zero import engine

    start_distributed()
    config = compose(
        [
            "recipe=demo",
            "train.precision=fp32",
            "train.zero_stage=1",
            "train.memory.activation_checkpointing=false",
        ]
    )
    model = AutoModelForCausalLM.from_config(
        LlamaConfig(
            **SHAPE, num_attention_heads=8, num_key_value_heads=8, tie_word_embeddings=True
        ),
        dtype=torch.float32,
    )
    model.set_attn_implementation(attention.register("sdpa"))
    live: Any = engine.build_engine(model, config, 1)
    ids = torch.arange(64)[None]
    borders = attention.document_borders(torch.tensor([0, 64], dtype=torch.int32))
    live.backward(live(input_ids=ids, position_ids=ids, labels=ids, total_labels=64, **borders))
    live.step()
    return live, live.checkpoint_engine
