"""Programs of a rank in test_param_groups.py: train with parameter groups."""

from typing import Any

import numpy as np
from feeds import config, feed, train_steps
from models import tiny_model

from ropewalk.train import attention
from ropewalk.train.model import save
from ropewalk.train.zero import engine
from ropewalk.train.zero.mesh import Mesh


def weights_and_groups(steps: int, accumulated: int, train: dict[str, Any]) -> dict[str, Any]:
    """Weights after `steps`, and rate and decay of the engine's parameter groups."""
    settings, mesh = config(**train), Mesh.of(1)
    model = tiny_model()
    model.set_attn_implementation(attention.register("sdpa"))
    live, reads = engine.build_engine(model, settings, accumulated), feed(mesh, accumulated)
    train_steps(live, settings, reads, range(steps))
    weights: dict[str, np.ndarray] = {
        n: t.numpy() for n, t in save.gather_full_state_dict(model.named_parameters()).items()
    }
    return {
        "weights": weights,
        "groups": [(g["lr"], g["weight_decay"]) for g in live.optimizer.param_groups],
    }


def build_error(train: dict[str, Any]) -> str:
    try:
        engine.build_engine(tiny_model(), config(**train), 1)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""
