"""What a checkpoint costs the training, and what a resumed run's start costs beside a cold one."""

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

# -- in the parent -----------------------------------------------------------------------------------------------------


def checkpoint_stall(quick: bool) -> list[dict[str, Any]]:
    """How long a save holds the training, beside the copy that it cannot do without; all in one process, alternating."""
    found = common.alone(lambda: common.child("checkpointing:stalls", quick=quick))
    ours, copy, plain = (common.median(found[name]) for name in ("ours", "copy", "plain"))
    facts = {
        "gib": round(found["bytes"] / 2**30, 3),
        "first": found["first"],
        "of_rounds": common.spread(found["ours"]),
    }
    return [
        common.result(
            "checkpoint_stall", ours, "s", peer=COPY, peer_value=copy, bar="ratio <= 1.1", **facts
        ),
        common.result(
            "checkpoint_stall_beside_save", ours, "s", peer=SAVE, peer_value=plain, **facts
        ),
    ]


def resume_to_first_step(quick: bool) -> list[dict[str, Any]]:
    """From the command to the first new line of metrics.jsonl: a cold start, stopped there, and the same command again."""
    recipe, _ = startup._recipe()
    words = [
        f"recipe={recipe}",
        "data.total_tokens=200000",
        "train.steps=2000",
        "train.schedule.warmup_steps=0",
        "train.metrics.wandb=off",
    ]
    with tempfile.TemporaryDirectory() as folder:
        words += ["name=start", f"runs_dir={folder}/runs", f"cache_dir={folder}/cache"]
        startup._end(startup._ropewalk("data", words, folder), folder)
        run = Path(folder) / "runs" / "start"
        arms = {
            "cold": lambda: _to_next_line(words, run, folder, cold=True),
            "resumed": lambda: _to_next_line(words, run, folder),
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


def _to_next_line(words: list[str], run: Path, folder: str, cold: bool = False) -> float:
    """Seconds to a line that was not there; then the run is asked to stop, and leaves a checkpoint."""
    if cold:
        shutil.rmtree(run / "train.tmp", ignore_errors=True)
    metrics = run / "train.tmp" / "metrics.jsonl"
    there, started = _lines(metrics), time.perf_counter()
    process = startup._ropewalk("train", words, folder)
    while process.poll() is None and _lines(metrics) <= there:
        if time.perf_counter() - started > startup.WAIT:
            break
        time.sleep(0.02)
    seconds = time.perf_counter() - started
    process.send_signal(signal.SIGTERM)
    if process.wait() != 75:
        raise RuntimeError(
            f"ropewalk: exit code {process.returncode}\n{startup._said(folder).read_text()[-1000:]}"
        )
    return seconds


def _lines(metrics: Path) -> int:
    return metrics.read_text().count("\n") if metrics.is_file() else 0


# -- in the child ------------------------------------------------------------------------------------------------------


def stalls(quick: bool) -> dict[str, Any]:
    """Seconds that each way holds the training, by round; ours is written to its end between the rounds."""
    from ropewalk.train.checkpoint.checkpointer import Checkpointer, TrainState
    from ropewalk.train.zero.mesh import Mesh

    live, torch_engine = _engine()
    found: dict[str, Any] = {"ours": [], "copy": [], "plain": []}
    with tempfile.TemporaryDirectory(dir=".") as folder:
        keeper = Checkpointer(
            live, Path(folder) / "ours", train_config(steps=1, optimizer__lr=1e-3), Mesh()
        )
        for number in range(2 if quick else 6):
            keeper.save(TrainState(number + 1))
            found["ours"].append(keeper.save_stall_s)
            keeper.wait()
            tensors = keeper.writer.buffers.in_use
            started = time.perf_counter()
            copies = [tensor.clone() for tensor in tensors]
            found["copy"].append(time.perf_counter() - started)
            found["bytes"] = sum(tensor.nbytes for tensor in copies)
            del copies
            live.checkpoint_engine = torch_engine
            started = time.perf_counter()
            live.save_checkpoint(str(Path(folder) / "plain"), tag="plain", save_latest=False)
            found["plain"].append(time.perf_counter() - started)
            live.checkpoint_engine = keeper.writer
    # the first one asks the system for the pages of its buffers
    found["first"] = found["ours"].pop(0)
    return found


def _engine() -> tuple[Any, Any]:
    """A model of 40 million parameters whose optimizer has its states, and DeepSpeed's own checkpoint engine."""
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
    live = engine.build_engine(model, config, 1)
    ids = torch.arange(64)[None]
    whole = attention.document_borders(torch.tensor([0, 64], dtype=torch.int32))
    live.backward(live(input_ids=ids, position_ids=ids, labels=ids, total_labels=64, **whole))
    live.step()
    return live, live.checkpoint_engine
