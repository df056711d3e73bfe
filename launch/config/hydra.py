"""Composes the YAML files with Hydra; the only file that runs it."""

import copy
from collections.abc import Sequence
from functools import cache

from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from ropewalk.conf.rope_methods import ROPE_METHODS
from ropewalk.conf.schema import Config

# For some files Hydra raises bare Python exceptions.
HYDRA_ERRORS = (HydraException, OmegaConfBaseException, ValueError, AssertionError, AttributeError)
_NOISE = ("full_key", "object_type", "reference_type", "Set the environment")


def register() -> None:
    """Put the dataclasses where the YAML finds them (`/schema/...`), and forget an earlier use."""
    store = ConfigStore.instance()
    store.store(group="schema", name="config", node=Config)
    for method, kind in ROPE_METHODS.items():
        store.store(group="schema/rope", name=method, node=kind)
    GlobalHydra.instance().clear()


def compose_node(overrides: Sequence[str]) -> DictConfig:
    """The values of the YAML files that groups choose: `recipe=NAME`, `rope=METHOD`, unchecked.

    Raises: HYDRA_ERRORS.
    """
    if any(override.startswith("hydra.") for override in overrides):
        return _composed(tuple(overrides))
    return copy.deepcopy(_composed_of_shipped_files(tuple(overrides)))


def _composed(overrides: tuple[str, ...]) -> DictConfig:
    register()
    with initialize_config_module("ropewalk.conf", version_base="1.3"):
        return compose("config", overrides=list(overrides))


@cache  # our own files do not change while a sweep composes its runs
def _composed_of_shipped_files(overrides: tuple[str, ...]) -> DictConfig:
    return _composed(overrides)


def one_line(error: BaseException) -> str:
    """The message of Hydra or OmegaConf in one line, or its cause's, with the key."""
    cause = error.__cause__
    text = str(cause if isinstance(cause, OmegaConfBaseException) else error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    keys = [line.split(":", 1)[1].strip() for line in lines if line.startswith("full_key")]
    key = next(iter(keys), "")
    message = " ".join(line for line in lines if not line.startswith(_NOISE))
    return f"{message} (at {key})" if key and key not in message else message
