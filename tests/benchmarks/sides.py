"""A training step in a child process: ours, transformers' Trainer and TRL's SFTTrainer.

All have the demo's Llama shape, the same random weights, the same documents in one sequence, fp32,
AdamW (betas 0.9, 0.95, no decay), clipping at 1.0 and one process. Labels end with each document.
"""

import tempfile
import time
from typing import Any

import common
import numpy as np
from train_settings import train_config

from ropewalk.conf.eval import EvalConfig
from ropewalk.conf.model import ModelConfig, ScratchConfig
from ropewalk.train.base import Base, base_config
from ropewalk.train.zero.mesh import start_distributed

SHAPE = {
    "vocab_size": 2048,
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "max_position_embeddings": 16384,
}
SHARES = (0.40, 0.25, 0.15, 0.10, 0.06, 0.04)  # six documents a sequence
WARM = 256  # tokens of the first step, which is not counted
LR, BETAS = 1e-4, (0.9, 0.95)


def documents(length: int, single_document: bool) -> list[np.ndarray]:
    """Random ids below the smallest vocabulary: one document, or six of fixed shares."""
    inner = [] if single_document else [int(length * share) for share in SHARES[1:]]
    sizes = [length - sum(inner), *inner]
    rng = np.random.default_rng(length)
    return [rng.integers(0, SHAPE["vocab_size"], size) for size in sizes]


def steps(
    length: int, count: int, single_document: bool, warm: bool = True
) -> list[list[np.ndarray]]:
    """Documents of each step: a short warm-up, then the same sequence every time."""
    return [documents(WARM, single_document)] * warm + [documents(length, single_document)] * count


class Watch:
    """End times of the steps, and peak memory of the first counted step."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.peak_mib = 0.0

    def step_ended(self) -> None:
        self.ends.append(time.perf_counter())
        if len(self.ends) == 1:
            self.peak = common.Peak()
        elif len(self.ends) == 2:
            self.peak_mib = self.peak.mib()

    def answer(self, losses: list[float]) -> dict[str, Any]:
        seconds = np.diff(self.ends).tolist()
        return {"seconds": seconds, "losses": losses, "peak_mib": self.peak_mib}


def ours(
    length: int,
    count: int,
    checkpointing: bool,
    single_document: bool = False,
    vocabulary: int = SHAPE["vocab_size"],
    **more: Any,
) -> dict[str, Any]:
    """As `ropewalk train` does it: `build_engine`, then `train_step`."""
    from ropewalk.data.dataset import BatchLoader, concatenate
    from ropewalk.train.loop.step import train_step
    from ropewalk.train.metrics import StepMetrics
    from ropewalk.train.zero import engine
    from ropewalk.train.zero.mesh import Mesh

    config = our_config(length, vocabulary, memory__activation_checkpointing=checkpointing, **more)
    start_distributed()
    live = engine.build_engine(our_model(config), config, 1)
    watch, losses, seen = Watch(), [], StepMetrics(live, config, Mesh())
    for number, texts in enumerate(steps(length, count, single_document)):
        row = concatenate(texts, sum(map(len, texts)))
        feed = BatchLoader(One(row), Mesh(), seed=0, micro_batch_size=1, batch_ramp=[(0, 1)])
        rows = feed.micro_batches([number])
        line = train_step(
            live, config, feed, rows, number, Mesh(), seen, accept_step=lambda *_: True
        )
        losses.append(line["loss"])
        watch.step_ended()
    return watch.answer(losses)


class One:
    """A plan of one sequence, for the loader."""

    def __init__(self, row: Any) -> None:
        self.row, self.seq_len = row, len(row.input_ids)

    def __len__(self) -> int:
        return 1

    def read(self, number: int, epoch: int, low: int, high: int) -> Any:
        return self.row

    def num_labels(self, number: int) -> int:
        return int((self.row.labels >= 0).sum())

    def attention_work(self, number: int) -> int:
        return 1


def our_config(length: int, vocabulary: int = SHAPE["vocab_size"], **train: Any) -> Any:
    from ropewalk.conf import schema
    from ropewalk.conf.data import DataConfig

    settings = {
        "steps": 1000,
        "optimizer__lr": LR,
        "schedule__kind": "constant",
        "precision": "fp32",
        "zero_stage": 1,
        **train,
    }
    return schema.Config(
        name="bench",
        model=ModelConfig(scratch=ScratchConfig(**{**SHAPE, "vocab_size": vocabulary})),
        rope=schema.RopeConfig(),
        data=DataConfig(seq_len=length),
        train=train_config(optimizer__betas=list(BETAS), attention__kernel="sdpa", **settings),
        eval=EvalConfig(),
    )


def our_model(config: Any) -> Any:
    import torch

    from ropewalk.train.model import build
    from ropewalk.train.rope import plan

    base = Base(None, scratch=config.model.scratch)
    rope = plan.make(config.rope, base_config(base), base.name)
    return build.build(
        base,
        rope,
        dtype=torch.float32,
        seed=config.seed,
        attention_kernel=config.train.attention.kernel,
    )


def trainer(
    length: int,
    count: int,
    checkpointing: bool,
    single_document: bool = False,
    vocabulary: int = SHAPE["vocab_size"],
    warm: bool = True,
) -> dict[str, Any]:
    """transformers' Trainer with DataCollatorWithFlattening, sdpa and its default optimizer."""
    from transformers import DataCollatorWithFlattening, Trainer, TrainingArguments

    flatten = DataCollatorWithFlattening()
    rows = [
        {"documents": [{"input_ids": t.tolist()} for t in texts]}
        for texts in steps(length, count, single_document, warm)
    ]
    return _run(
        Trainer,
        TrainingArguments,
        _arguments(len(rows), checkpointing) | {"remove_unused_columns": False},
        model=_their_model(vocabulary),
        train_dataset=rows,
        data_collator=lambda batch: flatten(batch[0]["documents"]),
    )


def sft(
    length: int,
    count: int,
    checkpointing: bool,
    single_document: bool = False,
    vocabulary: int = SHAPE["vocab_size"],
) -> dict[str, Any]:
    """TRL's SFTTrainer with its collator, model and loss, on sequences packed beforehand."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = [
        {"input_ids": np.concatenate(texts).tolist(), "seq_lengths": [len(t) for t in texts]}
        for texts in steps(length, count, single_document)
    ]
    packing = {
        "packing": True,
        "max_length": length,
        "bf16": False,
        "dataset_kwargs": {"skip_prepare_dataset": True},
    }
    return _run(
        SFTTrainer,
        SFTConfig,
        _arguments(len(rows), checkpointing) | packing,
        model=_their_model(vocabulary),
        train_dataset=Dataset.from_list(rows),
        processing_class=_words(),
    )


def _run(kind: Any, arguments: Any, settings: dict[str, Any], **parts: Any) -> dict[str, Any]:
    """Train with `kind`, and record each step's end and loss."""
    from transformers import TrainerCallback

    watch, losses = Watch(), []

    class Ends(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            watch.step_ended()

    class WithLosses(kind):
        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            losses.append(super().training_step(*args, **kwargs))
            return losses[-1]

    with tempfile.TemporaryDirectory() as folder:
        WithLosses(
            args=arguments(output_dir=folder, **settings), callbacks=[Ends()], **parts
        ).train()
    return watch.answer([float(loss) for loss in losses])


def _words() -> Any:
    """A tokenizer, which SFTTrainer requires though it gets ids."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({"end": 0}, "end")), eos_token="end"
    )


def _their_model(vocabulary: int) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    from ropewalk.conf.model import ScratchConfig
    from ropewalk.train.base import Base, base_config

    config = base_config(Base(None, scratch=ScratchConfig(**{**SHAPE, "vocab_size": vocabulary})))
    torch.manual_seed(0)  # as ours: the same weights
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa")


def _arguments(count: int, checkpointing: bool) -> dict[str, Any]:
    quiet = {"report_to": [], "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
    adam = {
        "adam_beta1": BETAS[0],
        "adam_beta2": BETAS[1],
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
    }
    batches = {
        "per_device_train_batch_size": 1,
        "train_sampling_strategy": "sequential",
        "max_steps": count,
    }
    plan = {
        "learning_rate": LR,
        "lr_scheduler_type": "constant",
        "gradient_checkpointing": checkpointing,
    }
    return {"use_cpu": True, "dataloader_pin_memory": False, **quiet, **adam, **batches, **plan}
