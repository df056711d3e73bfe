"""The cheapest changes that make a configuration fit, each traced again.

All changes that save memory are taken together; if that fits, the dearest that can be left out are,
one after the other. So no change of the answer can be left out. Nothing is guessed: every step of
the way is a trace, but for what is beyond the memory by its states and the layers' inputs alone.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from ropewalk.conf.schema import Config
from ropewalk.conf.train import TrainConfig
from ropewalk.launch.plan.ask import Asked
from ropewalk.launch.plan.verdict import FITS

Change = tuple[str, Any]
"""A setting and its value."""
Ask = Callable[[Sequence[Asked]], list[dict[str, Any]]]
Tell = Callable[[str], None]
TILE_TOKENS, MOST_TILES, LORA_RANK = 4096, 8, 16


def ladder(config: Config, gpus: int, gpus_per_node: int) -> list[Change]:
    """The changes that are open to a configuration, from the cheapest in time to the dearest.

    LoRA trains something else, and is the last.
    """
    on_node = range(1, min(gpus, gpus_per_node) + 1)
    most = max(n for n in on_node if gpus % n == 0)
    tokens = config.data.seq_len // max(most, config.train.sp_size)
    return list(_ladder(config.train, gpus, most, _tile(tokens)))


def _tile(tokens: int) -> int:
    """Tokens of an MLP's tile: an eighth of what a rank has leaves few of the MLP's activations,
    and many small tiles are slow."""
    part = -(-tokens // MOST_TILES)
    return max(TILE_TOKENS, -(-part // 1024) * 1024)


def _ladder(train: TrainConfig, gpus: int, most: int, tile: int) -> Iterator[Change]:
    memory = train.memory
    if train.micro_batch_size > 1:
        yield "train.micro_batch_size", 1
    if not memory.activation_checkpointing:
        yield "train.memory.activation_checkpointing", True
    if train.zero_stage < 3 and gpus > 1:
        yield "train.zero_stage", 3
    if train.sp_size < most:
        yield "train.sp_size", most
    if not memory.tile_mlp_tokens:
        yield "train.memory.tile_mlp_tokens", tile
    if memory.keep_attention is not False:
        yield "train.memory.keep_attention", False
    if not memory.offload_activations:
        yield "train.memory.offload_activations", True
    if not memory.offload_optimizer and train.optimizer.name == "adamw":
        yield "train.memory.offload_optimizer", True
    if not memory.offload_params:
        yield "train.memory.offload_params", True
    if not train.lora.rank:
        yield "train.lora.rank", LORA_RANK


def apply(config: Config, changes: Sequence[Change]) -> Config:
    """`config` with the changes; offloaded weights need ZeRO 3, and compile goes without it."""
    train = config.train
    for key, value in changes:
        *sections, name = key.removeprefix("train.").split(".")
        if not sections:
            train = replace(train, **{name: value})
            continue
        section = replace(getattr(train, sections[0]), **{name: value})
        train = replace(train, **{sections[0]: section})
    if train.zero_stage == 3 and train.memory.compile:
        train = replace(train, memory=replace(train.memory, compile=False))
    return replace(config, train=train)


def cheapest(
    asked: Asked, gpus_per_node: int, ask: Ask, tell: Tell = lambda _: None
) -> tuple[list[Change], dict[str, Any] | None]:
    """The changes and their forecast; None where all of them together do not fit. `tell` is given
    a line for each try."""
    tries = _Tries(asked, ask, tell)
    changes = ladder(asked.config, asked.gpus, gpus_per_node)
    without_lora = [change for change in changes if change[0] != "train.lora.rank"]
    for chosen in (without_lora, changes):
        if (answer := tries.fits(chosen)) is not None:
            return _without_the_dearest(tries, chosen, answer)
    return [], None


def _without_the_dearest(
    tries: "_Tries", chosen: list[Change], answer: dict[str, Any]
) -> tuple[list[Change], dict[str, Any]]:
    for change in reversed(chosen):
        fewer = [one for one in chosen if one != change]
        if _is_allowed(tries.asked.config, fewer) and (other := tries.fits(fewer)):
            chosen, answer = fewer, other
    return chosen, answer


def _is_allowed(config: Config, changes: Sequence[Change]) -> bool:
    memory = apply(config, changes).train.memory
    stage = apply(config, changes).train.zero_stage
    return stage == 3 or not memory.offload_params


class _Tries:
    """Changes of one question that were traced, and what to say of them."""

    def __init__(self, asked: Asked, ask: Ask, tell: Tell) -> None:
        self.asked, self.ask, self.tell = asked, ask, tell
        self.number = 0

    def fits(self, changes: Sequence[Change]) -> dict[str, Any] | None:
        """The forecast with the changes; None where it does not fit."""
        started = time.perf_counter()
        config = apply(self.asked.config, changes)
        (answer,) = self.ask([replace(self.asked, config=config, is_try=True)])
        self.number += 1
        is_fitting = answer.get("verdict") == FITS
        words = " ".join(as_overrides(changes, self.asked.config)) or "no change"
        self.tell(
            f"try {self.number}: {'fits' if is_fitting else 'does not fit'} "
            f"({time.perf_counter() - started:.0f} s): {words}"
        )
        return answer if is_fitting else None


def as_overrides(changes: Sequence[Change], config: Config) -> list[str]:
    """To paste into the command line."""
    words = [f"{key}={str(value).lower()}" for key, value in changes]
    train = apply(config, changes).train
    if config.train.memory.compile and not train.memory.compile:
        words.append("train.memory.compile=false")
    return words
