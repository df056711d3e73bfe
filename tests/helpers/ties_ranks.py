"""A program of a rank in test_ties.py: a base is built under a plan, and saved."""

from pathlib import Path

import torch

from ropewalk.train.base import Base
from ropewalk.train.model import build, save
from ropewalk.train.rope.plan import RopePlan


def build_and_save(base: str, plan: RopePlan, stage: int, folder: str) -> None:
    """`stage`: of ZeRO; 3 partitions the parameters while the base is loaded."""
    zero = {"train_batch_size": 1, "zero_optimization": {"stage": stage}}
    model = build.build(Base(base), plan, dtype=torch.float32, deepspeed_config=zero)
    save.save_pretrained(model, Path(folder))
