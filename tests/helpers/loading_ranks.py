"""A program of a rank in test_loading.py: what a load is refused with, partitioned or not."""

from feeds import config

from ropewalk.conf.errors import ConfigError
from ropewalk.train.weights.loading import load_pretrained
from ropewalk.train.zero.config import deepspeed_config
from ropewalk.train.zero.params import is_partitioned, zero3_init


def refusal(path: str, stage: int) -> str:
    """The message; for a model that loads, whether it is partitioned."""
    settings = config(zero_stage=stage, precision="fp32")
    try:
        with zero3_init(deepspeed_config(settings.train, 1)):
            return str(is_partitioned(load_pretrained(path, "model.path is base")))
    except ConfigError as error:
        return str(error)
