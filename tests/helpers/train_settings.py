"""Settings of the train stage by keyword."""

import dataclasses
import typing
from typing import Any

from ropewalk.conf.train import TrainConfig


def train_config(**settings: Any) -> TrainConfig:
    """`SECTION__KEY=value` sets `train.SECTION.KEY`, such as `optimizer__lr=1e-3`."""
    sections: dict[str, Any] = {}
    for key in [key for key in settings if "__" in key]:
        section, name = key.split("__")
        sections.setdefault(section, {})[name] = settings.pop(key)
    types = typing.get_type_hints(TrainConfig)
    return TrainConfig(**settings, **{key: types[key](**kw) for key, kw in sections.items()})


def changed(train: TrainConfig, **settings: Any) -> TrainConfig:
    """A copy with other values; keys as in `train_config`."""
    for key, value in settings.items():
        section, _, name = key.rpartition("__")
        if section:
            value = dataclasses.replace(getattr(train, section), **{name: value})
        train = dataclasses.replace(train, **{section or name: value})
    return train
