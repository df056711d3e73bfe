"""The search with stand-ins for traces: a training of which each change saves known bytes."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest

from ropewalk.conf.schema import Config
from ropewalk.launch.config.compose import compose
from ropewalk.launch.plan import search
from ropewalk.launch.plan.ask import Asked

SAVINGS = {
    "train.zero_stage": 10,
    "train.sp_size": 40,
    "train.memory.tile_mlp_tokens": 5,
    "train.memory.keep_attention": 8,
    "train.memory.offload_activations": 16,
    "train.memory.offload_optimizer": 12,
    "train.memory.offload_params": 3,
    "train.lora.rank": 20,
}
ALL = sum(SAVINGS.values())


def config() -> Config:
    words = ["model.path=builtin:demo", "data.seq_len=4096", "rope=none", "train.zero_stage=1"]
    return compose(words, "plan")


def value_of(train: Any, key: str) -> Any:
    for part in key.removeprefix("train.").split("."):
        train = getattr(train, part)
    return train


class Traces:
    """Answers by SAVINGS; `asked` counts them."""

    def __init__(self, needed: int) -> None:
        self.needed, self.asked = needed, 0
        self.changes = dict(search.ladder(config(), 8, 8))

    def saved(self, trained: Config) -> int:
        train = trained.train
        return sum(
            size for key, size in SAVINGS.items() if value_of(train, key) == self.changes[key]
        )

    def __call__(self, asked: Sequence[Asked]) -> list[dict[str, Any]]:
        self.asked += len(asked)
        assert all(one.is_try for one in asked)
        fits = [self.saved(one.config) >= self.needed for one in asked]
        return [{"verdict": "fits" if fit else "too_close"} for fit in fits]


def test_the_ladder_has_each_saving_once() -> None:
    assert [key for key, _ in search.ladder(config(), 8, 8)] == list(SAVINGS)


@pytest.mark.parametrize("needed", range(1, ALL - 19, 7))
def test_no_change_of_the_answer_can_be_left_out(needed: int) -> None:
    traces = Traces(needed)
    changes, answer = search.cheapest(Asked(config(), "h100", 8), 8, traces)
    assert answer == {"verdict": "fits"}
    assert traces.asked <= 1 + len(SAVINGS)
    keys = [key for key, _ in changes]
    assert sum(SAVINGS[key] for key in keys) >= needed
    for fewer in combinations(keys, len(keys) - 1):
        left = set(keys) - set(fewer)
        needs_stage = left == {"train.zero_stage"} and "train.memory.offload_params" in keys
        assert needs_stage or sum(SAVINGS[key] for key in fewer) < needed, (keys, fewer)


def test_lora_comes_only_where_nothing_else_fits() -> None:
    asked = Asked(config(), "h100", 8)
    without, _ = search.cheapest(asked, 8, Traces(ALL - 20))
    with_lora, _ = search.cheapest(asked, 8, Traces(ALL - 19))
    assert "train.lora.rank" not in dict(without) and "train.lora.rank" in dict(with_lora)
    assert search.cheapest(asked, 8, Traces(ALL + 1)) == ([], None)


def test_what_is_printed_sets_what_was_traced() -> None:
    """Pasted into the command line, the words give the settings that were traced."""
    changes = search.ladder(config(), 8, 8)
    words = search.as_overrides(changes, config())
    base = ["model.path=builtin:demo", "data.seq_len=4096", "rope=none", "train.zero_stage=1"]
    pasted = compose([*base, *(word for word in words if word not in base)], "plan")
    assert pasted.train == search.apply(config(), changes).train


def test_compile_goes_where_zero_three_comes() -> None:
    compiled = config()
    memory = replace(compiled.train.memory, compile=True)
    compiled = replace(compiled, train=replace(compiled.train, memory=memory))
    words = search.as_overrides([("train.zero_stage", 3)], compiled)
    assert words == ["train.zero_stage=3", "train.memory.compile=false"]


def test_each_try_is_told() -> None:
    traces, lines = Traces(ALL - 20), list[str]()
    search.cheapest(Asked(config(), "h100", 8), 8, traces, lines.append)
    assert len(lines) == traces.asked
    assert lines[0].startswith("try 1: fits (0 s): train.zero_stage=3 train.sp_size=8 ")
    assert (
        sum("does not fit" in line for line in lines) == 6
    )  # without ZeRO 3 no weight is offloaded


@pytest.mark.parametrize(
    ("seq_len", "tile"), [(4096, 4096), (1 << 20, 16_384), (1_000_000, 16_384)]
)
def test_a_tile_is_an_eighth_of_a_ranks_tokens(seq_len: int, tile: int) -> None:
    long = replace(config(), data=replace(config().data, seq_len=seq_len))
    assert dict(search.ladder(long, 8, 8))["train.memory.tile_mlp_tokens"] == tile
