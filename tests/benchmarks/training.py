"""A training step on packed documents, and what it holds: Ropewalk beside transformers' Trainer and TRL's SFTTrainer."""

from typing import Any

import common

PEERS = {
    "trainer": "transformers Trainer, sdpa, flattened with position_ids",
    "sft": "TRL SFTTrainer, packing, sdpa",
}
END = {"trainer": "", "sft": "_trl"}  # of a row's name
VOCABULARY = 49152  # SmolLM2's
STEPS = {2048: (3, 16), 8192: (3, 3), 16384: (2, 1)}  # rounds, counted steps a round


def train_step_2048(quick: bool) -> list[dict[str, Any]]:
    return _step(2048, quick)


def train_step_8192(quick: bool) -> list[dict[str, Any]]:
    return _step(8192, quick)


def train_step_16384(quick: bool) -> list[dict[str, Any]]:
    return _step(16384, quick)


def _step(length: int, quick: bool) -> list[dict[str, Any]]:
    """Tokens a second of six documents a sequence, and of one, where no mask can be saved."""
    rounds, count = (1, 2) if quick else STEPS[length]
    return [
        r
        for whole in (False, True)
        for r in _paired(length // 16 if quick else length, whole, count, rounds)
    ]


def _paired(length: int, whole: bool, count: int, rounds: int) -> list[dict[str, Any]]:
    name = f"train_step_{'whole' if whole else 'packed'}_{length}"
    common.say(f"{name}: {rounds} rounds of {count} steps")
    arguments = {"length": length, "count": count, "checkpointing": False, "whole": whole}
    # one process each, in which nobody shards
    sides = {"ours": {"zero_stage": 0}, **{peer: {} for peer in PEERS}}
    measures = {
        side: lambda side=side, own=own: common.child(f"sides:{side}", **arguments, **own)
        for side, own in sides.items()
    }
    runs = common.alternate(rounds, measures)
    bar = "ratio >= 3.0" if length == 16384 and not whole else "ratio >= 1.0"
    return [r for peer in PEERS for r in _against(peer, name, length, bar, runs)]


def _against(
    peer: str, name: str, length: int, bar: str, runs: dict[str, list[Any]]
) -> list[dict[str, Any]]:
    """Speed, equality of the loss, and peak memory beside one peer."""
    both = {"ours": runs["ours"], peer: runs[peer]}
    speeds = {
        side: [length / common.median(r["seconds"]) for r in found] for side, found in both.items()
    }
    ratios = [a / b for a, b in zip(speeds["ours"], speeds[peer], strict=True)]
    speed = {
        side: length / common.median([s for r in found for s in r["seconds"]])
        for side, found in both.items()
    }
    peaks = {side: common.median([r["peak_mib"] for r in found]) for side, found in both.items()}
    more = {
        "ratio_of_rounds": common.spread(ratios),
        "rounds": len(ratios),
        "steps_a_round": len(runs[peer][0]["seconds"]),
    }
    beside = {"peer": PEERS[peer]}
    return [
        common.result(
            name + END[peer],
            speed["ours"],
            "tokens/s",
            peer_value=speed[peer],
            bar=bar,
            **beside,
            **more,
        ),
        _same_loss(
            f"{name}_loss_difference{END[peer]}",
            peer,
            runs["ours"][0]["losses"],
            runs[peer][0]["losses"],
        ),
        common.result(
            f"{name}_memory{END[peer]}", peaks["ours"], "MiB", peer_value=peaks[peer], **beside
        ),
    ]


def _same_loss(name: str, peer: str, ours: list[float], theirs: list[float]) -> dict[str, Any]:
    """The first counted step: the same weights but for one warm-up step, the same tokens."""
    steps_apart = [abs(a / b - 1) for a, b in zip(ours, theirs, strict=True)]
    common.say(f"  losses of ours and {peer}: {ours[1]:.7f} {theirs[1]:.7f}")
    told = {"ours": ours[1], peer: theirs[1], "largest_of_all_steps": max(steps_apart)}
    return common.result(name, steps_apart[1], "relative", bar="value <= 1e-4", **told)


def train_memory_growth(quick: bool) -> list[dict[str, Any]]:
    """Peak memory of one step at three lengths: linear in the sequence, or not."""
    lengths = [512, 1024, 2048] if quick else [4096, 8192, 16384]
    return [r for checkpointing in (True, False) for r in _growth(lengths, checkpointing)]


def _growth(lengths: list[int], checkpointing: bool) -> list[dict[str, Any]]:
    on = "checkpointing" if checkpointing else "no_checkpointing"
    ours = {n: _peak("ours", n, checkpointing) for n in lengths}
    short, long = lengths[0], lengths[-1]
    unit, value = f"peak({long})/peak({short})", ours[long] / ours[short]
    return [
        common.result(
            f"train_memory_growth_{on}", value, unit, bar="value <= 4.2", mib=_by_length(ours)
        )
    ]


def _by_length(peaks: dict[int, float]) -> dict[str, float]:
    return {str(length): round(mib, 1) for length, mib in peaks.items()}


def train_memory(quick: bool) -> list[dict[str, Any]]:
    """Peak of one step at 16,384 tokens over a large vocabulary, each with activation checkpointing, beside both peers."""
    size = (
        {"length": 1024, "vocabulary": 4096}
        if quick
        else {"length": 16384, "vocabulary": VOCABULARY}
    )
    ours = {
        "": _peak("ours", **size),
        "_tiled": _peak("ours", **size, memory__tile_mlp_tokens=size["length"] // 8),
    }
    found = []
    for peer, told in PEERS.items():
        theirs, why = _peer_peak(peer, **size)
        beside = {"peer": told, "peer_value": theirs, "peer_left_out": why, "bar": "ratio <= 0.25"}
        for how, mib in ours.items():
            found.append(
                common.result(
                    f"train_memory_{size['length']}{how}{END[peer]}", mib, "MiB", **beside
                )
            )
    return found


def _peer_peak(peer: str, **size: Any) -> tuple[float | None, str | None]:
    """Its peak, or why there is none: it may need more memory than there is, or ten minutes."""
    try:
        return _peak(peer, **size, timeout=600), None
    except common.LeftOut as why:
        return None, str(why)
    except RuntimeError as error:
        if "exit code -9" not in str(error):
            raise
        return None, "killed for memory"


def _peak(
    side: str, length: int, checkpointing: bool = True, timeout: float | None = None, **more: Any
) -> float:
    """MiB of one step above the loaded model."""
    common.wait_for_quiet()  # memory does not mind others, a time limit does
    arguments = {"length": length, "count": 1, "checkpointing": checkpointing, **more}
    mib: float = common.child(f"sides:{side}", timeout, **arguments)["peak_mib"]
    common.say(f"  {side} {arguments}: {mib:.1f} MiB")
    return mib


def train_loop_overhead(quick: bool) -> list[dict[str, Any]]:
    """What `train.loop.train` with its metrics adds to forward, backward and optimizer, in a step of about a second."""
    length, count = (512, 4) if quick else (4096, 20)
    found = common.alone(lambda: common.child("overhead:ours", length=length, count=count))
    outside, whole = common.median(found["outside"]), common.median(found["whole"])
    told = {"step_s": whole, "share_of_step": outside / whole, "steps": count}
    return [common.result("train_loop_overhead", outside, "s a step", bar="value <= 0.03", **told)]
