"""Speed and memory of a training step: ours beside transformers' Trainer and TRL's SFTTrainer."""

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
    """Tokens per second with six documents a sequence, and with one, where no mask is needed."""
    rounds, count = (1, 2) if quick else STEPS[length]
    return [
        r
        for single_document in (False, True)
        for r in _paired(length // 16 if quick else length, single_document, count, rounds)
    ]


def _paired(length: int, single_document: bool, count: int, rounds: int) -> list[dict[str, Any]]:
    name = f"train_step_{'whole' if single_document else 'packed'}_{length}"
    common.say(f"{name}: {rounds} rounds of {count} steps")
    arguments = {
        "length": length,
        "count": count,
        "checkpointing": False,
        "single_document": single_document,
    }
    # one process each, in which nobody shards
    sides = {"ours": {"zero_stage": 0}, **{peer: {} for peer in PEERS}}
    measures = {
        side: lambda side=side, settings=settings: common.child(
            f"sides:{side}", **arguments, **settings
        )
        for side, settings in sides.items()
    }
    runs = common.alternate(rounds, measures)
    bar = "ratio >= 3.0" if length == 16384 and not single_document else "ratio >= 1.0"
    return [r for peer in PEERS for r in _against(peer, name, length, bar, runs)]


def _against(
    peer: str, name: str, length: int, bar: str, runs: dict[str, list[Any]]
) -> list[dict[str, Any]]:
    """Speed, equality of the loss, and peak memory beside one peer."""
    sides = {"ours": runs["ours"], peer: runs[peer]}
    speeds = {
        side: [length / common.median(r["seconds"]) for r in rounds]
        for side, rounds in sides.items()
    }
    ratios = [a / b for a, b in zip(speeds["ours"], speeds[peer], strict=True)]
    speed = {
        side: length / common.median([s for r in rounds for s in r["seconds"]])
        for side, rounds in sides.items()
    }
    peaks = {side: common.median([r["peak_mib"] for r in rounds]) for side, rounds in sides.items()}
    more = {
        "ratio_of_rounds": common.spread(ratios),
        "rounds": len(ratios),
        "steps_a_round": len(runs[peer][0]["seconds"]),
    }
    peer_name = {"peer": PEERS[peer]}
    return [
        common.result(
            name + END[peer],
            speed["ours"],
            "tokens/s",
            peer_value=speed[peer],
            bar=bar,
            **peer_name,
            **more,
        ),
        _same_loss(
            f"{name}_loss_difference{END[peer]}",
            peer,
            runs["ours"][0]["losses"],
            runs[peer][0]["losses"],
        ),
        common.result(
            f"{name}_memory{END[peer]}", peaks["ours"], "MiB", peer_value=peaks[peer], **peer_name
        ),
    ]


def _same_loss(name: str, peer: str, ours: list[float], theirs: list[float]) -> dict[str, Any]:
    """Loss difference of the first counted step, one warm-up step after equal weights."""
    steps_apart = [abs(a / b - 1) for a, b in zip(ours, theirs, strict=True)]
    common.say(f"  losses of ours and {peer}: {ours[1]:.7f} {theirs[1]:.7f}")
    details = {"ours": ours[1], peer: theirs[1], "largest_of_all_steps": max(steps_apart)}
    return common.result(name, steps_apart[1], "relative", bar="value <= 1e-4", **details)


def train_memory_growth(quick: bool) -> list[dict[str, Any]]:
    """Peak memory of one step at three lengths: is it linear in the length?"""
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
    """Peak memory of one step of 16,384 tokens with a large vocabulary, beside both peers."""
    size = (
        {"length": 1024, "vocabulary": 4096}
        if quick
        else {"length": 16384, "vocabulary": VOCABULARY}
    )
    ours = {
        "": _peak("ours", **size),
        "_tiled": _peak("ours", **size, memory__tile_mlp_tokens=size["length"] // 8),
    }
    rows = []
    for peer, peer_name in PEERS.items():
        theirs, why = _peer_peak(peer, **size)
        peer_row = {
            "peer": peer_name,
            "peer_value": theirs,
            "peer_left_out": why,
            "bar": "ratio <= 0.25",
        }
        for how, mib in ours.items():
            rows.append(
                common.result(
                    f"train_memory_{size['length']}{how}{END[peer]}", mib, "MiB", **peer_row
                )
            )
    return rows


def _peer_peak(peer: str, **size: Any) -> tuple[float | None, str | None]:
    """A peer's peak, or the reason why there is none: ten minutes or the memory ran out."""
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
    common.wait_for_quiet()  # for the time limit: memory does not depend on other processes
    arguments = {"length": length, "count": 1, "checkpointing": checkpointing, **more}
    mib: float = common.child(f"sides:{side}", timeout, **arguments)["peak_mib"]
    common.say(f"  {side} {arguments}: {mib:.1f} MiB")
    return mib


def train_loop_overhead(quick: bool) -> list[dict[str, Any]]:
    """Seconds that `Trainer.train` with its metrics adds to a step of about a second."""
    length, count = (512, 4) if quick else (4096, 20)
    times = common.alone(lambda: common.child("overhead:ours", length=length, count=count))
    outside, step_s = common.median(times["outside"]), common.median(times["whole"])
    details = {"step_s": step_s, "share_of_step": outside / step_s, "steps": count}
    return [
        common.result("train_loop_overhead", outside, "s a step", bar="value <= 0.03", **details)
    ]
