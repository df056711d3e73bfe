"""The training settings of a finished run, for a verb that trains nothing."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from ropewalk.conf.artifacts import manifest

OF_TRAINING = "train.optimizer.lr"
"""Unset, no training can be meant but the one that stands."""


def with_training(composed: DictConfig, overrides: Mapping[str, Any]) -> DictConfig:
    """The settings with the `train` section of the run's finished training, if no learning rate is
    set; `overrides` of that section stay on top.

    Raises: OmegaConfBaseException when the section in its config.yaml does not fit.
    """
    missing = OmegaConf.missing_keys(composed)
    if OF_TRAINING not in missing or "name" in missing:
        return composed
    folder = Path(composed.runs_dir).expanduser() / composed.name
    if manifest.read(folder / "train") is None:
        return composed
    frozen = yaml.safe_load((folder / "config.yaml").read_text())
    training = {"train": OmegaConf.merge(frozen["train"], dict(overrides))}
    message = f"train settings are those of the finished training of {composed.name}"
    print(f"eval: {message}", file=sys.stderr)
    return OmegaConf.merge(composed, training)  # type: ignore[return-value]
