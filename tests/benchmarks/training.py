"""A training step on packed documents: Ropewalk's engine and loop beside transformers' Trainer.

Both sides: the demo's Llama shape, the same random weights, the same documents end to end in one sequence, fp32, AdamW
(betas 0.9, 0.95, no decay), clipping at 1.0, one process. Labels stop at each document's end on both.
"""

import tempfile
import time
from typing import Any

import common
import numpy as np

SHAPE = {
    "vocab_size": 2048,
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "max_position_embeddings": 16384,
}
SHARES = (0.40, 0.25, 0.15, 0.10, 0.06, 0.04)  # six documents a sequence
PEER = "transformers Trainer, sdpa, flattened with position_ids"
WARM = 256  # tokens of the first step, which is not counted
LR, BETAS = 1e-4, (0.9, 0.95)


# -- in the child ------------------------------------------------------------------------------------------------------


def documents(length: int, whole: bool) -> list[np.ndarray]:
    """Random words: six documents of fixed shares, or one; `length` tokens together."""
    inner = [] if whole else [int(length * share) for share in SHARES[1:]]
    sizes = [length - sum(inner), *inner]
    rng = np.random.default_rng(length)
    return [rng.integers(0, SHAPE["vocab_size"], size) for size in sizes]


def steps(length: int, count: int, whole: bool, warm: bool = True) -> list[list[np.ndarray]]:
    """What each step trains on: a short one to warm up, then the same sequence again and again."""
    return [documents(WARM, whole)] * warm + [documents(length, whole)] * count


class Watch:
    """Times of the steps' ends, and the peak of the first counted step."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.peak_mib = 0.0

    def step_ended(self) -> None:
        self.ends.append(time.perf_counter())
        if len(self.ends) == 1:
            self.peak = common.Peak()
        elif len(self.ends) == 2:
            self.peak_mib = self.peak.mib()

    def answer(self, losses: list[float]) -> dict[str, Any]:
        seconds = np.diff(self.ends).tolist()
        return {"seconds": seconds, "losses": losses, "peak_mib": self.peak_mib}


def ours(length: int, count: int, checkpointing: bool, whole: bool = False) -> dict[str, Any]:
    """The path of `ropewalk train`: `train.engine.make`, then `train.step.one_step`."""
    from ropewalk.data.dataset import Feed, lay
    from ropewalk.train import engine
    from ropewalk.train.mesh import Mesh
    from ropewalk.train.step import one_step

    config = _config(length, checkpointing)
    engine.start_distributed()
    live = engine.make(_our_model(config), config, 1)
    watch, losses = Watch(), []
    for number, texts in enumerate(steps(length, count, whole)):
        row = lay(texts, sum(map(len, texts)))
        feed = Feed(_One(row), seed=0, micro=1, accumulated=1)
        losses.append(one_step(live, config, feed, feed.micro_batches([number]), number, Mesh())["loss"])
        watch.step_ended()
    return watch.answer(losses)


class _One:
    """A plan of one sequence, as `train.loop` reads it."""

    def __init__(self, row: Any) -> None:
        self.row, self.seq_len = row, len(row.input_ids)

    def __len__(self) -> int:
        return 1

    def read(self, number: int, epoch: int, low: int, high: int) -> Any:
        return self.row

    def labels(self, number: int) -> int:
        return int((self.row.labels >= 0).sum())

    def work(self, number: int) -> int:
        return 1


def _config(length: int, checkpointing: bool) -> Any:
    from ropewalk.conf import schema
    from ropewalk.conf.data import DataConfig

    train = schema.TrainConfig(
        steps=1000, lr=LR, schedule="constant", precision="fp32", zero_stage=1, betas=list(BETAS), attention="sdpa"
    )
    train.activation_checkpointing = checkpointing
    return schema.Config(
        name="bench",
        model=schema.ModelConfig(scratch=schema.ScratchConfig(**SHAPE)),
        rope=schema.RopeConfig(),
        data=DataConfig(seq_len=length),
        train=train,
        eval=schema.EvalConfig(),
    )


def _our_model(config: Any) -> Any:
    import torch

    from ropewalk.train import model
    from ropewalk.train.rope import plan

    base = model.Base(None, scratch=config.model.scratch)
    rope = plan.make(config.rope, model.base_config(base), base.name)
    return model.build(base, rope, dtype=torch.float32, seed=config.seed, attention_kernel=config.train.attention)


def trainer(length: int, count: int, checkpointing: bool, whole: bool = False, warm: bool = True) -> dict[str, Any]:
    """The peer as its users run it: DataCollatorWithFlattening, sdpa, its default optimizer class."""
    from transformers import DataCollatorWithFlattening, Trainer, TrainerCallback

    flatten, watch, losses = DataCollatorWithFlattening(), Watch(), []

    class Ends(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            watch.step_ended()

    class Telling(Trainer):
        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            losses.append(super().training_step(*args, **kwargs))
            return losses[-1]

    rows = [{"documents": [{"input_ids": t.tolist()} for t in texts]} for texts in steps(length, count, whole, warm)]
    with tempfile.TemporaryDirectory() as folder:
        Telling(
            model=_their_model(),
            args=_arguments(folder, len(rows), checkpointing),
            train_dataset=rows,
            data_collator=lambda batch: flatten(batch[0]["documents"]),
            callbacks=[Ends()],
        ).train()
    return watch.answer([float(loss) for loss in losses])


def _their_model() -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    from ropewalk.conf.schema import ScratchConfig
    from ropewalk.train.model import Base, base_config

    config = base_config(Base(None, scratch=ScratchConfig(**SHAPE)))
    torch.manual_seed(0)  # as ours: the same weights
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa")


def _arguments(folder: str, count: int, checkpointing: bool) -> Any:
    from transformers import TrainingArguments

    quiet = {"report_to": [], "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
    adam = {"adam_beta1": BETAS[0], "adam_beta2": BETAS[1], "weight_decay": 0.0, "max_grad_norm": 1.0}
    return TrainingArguments(
        output_dir=folder,
        use_cpu=True,
        max_steps=count,
        per_device_train_batch_size=1,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        learning_rate=LR,
        lr_scheduler_type="constant",
        gradient_checkpointing=checkpointing,
        **quiet,
        **adam,
    )


# -- in the parent -----------------------------------------------------------------------------------------------------


def train_step_packed(quick: bool) -> list[dict[str, Any]]:
    """Tokens a second at 2,048 and 8,192, and of one whole document, where no mask can be saved."""
    found = []
    for length, whole in ((2048, False), (8192, False), (8192, True)):
        length, count = (length // 8, 2) if quick else (length, 24 if length == 2048 else 6)
        found += _paired(length, whole, count, 1 if quick else 3)
    return found


def _paired(length: int, whole: bool, count: int, rounds: int) -> list[dict[str, Any]]:
    kind = "whole" if whole else "packed"
    common.say(f"train_step_{kind} {length}: {rounds} rounds of {count} steps")
    arguments = {"length": length, "count": count, "checkpointing": False, "whole": whole}
    both = common.alternate(
        rounds,
        {side: lambda side=side: common.child(f"training:{side}", **arguments) for side in ("ours", "trainer")},
    )
    speeds = {side: [length / common.median(r["seconds"]) for r in runs] for side, runs in both.items()}
    ratios = [a / b for a, b in zip(speeds["ours"], speeds["trainer"], strict=True)]
    seconds = {side: [s for r in runs for s in r["seconds"]] for side, runs in both.items()}
    speed = {side: length / common.median(s) for side, s in seconds.items()}
    bar = None if whole else "ratio >= 1.0"
    more = {"ratio_of_rounds": common.spread(ratios), "rounds": rounds, "steps_a_round": count}
    name = f"train_step_{kind}_{length}"
    fast = common.result(name, speed["ours"], "tokens/s", peer=PEER, peer_value=speed["trainer"], bar=bar, **more)
    return [fast, _same_loss(name, both), _memory_of(name, both)]


def _same_loss(name: str, both: dict[str, list[Any]]) -> dict[str, Any]:
    """The first counted step: the same weights but for one warm-up step, the same tokens."""
    first = {side: runs[0]["losses"] for side, runs in both.items()}
    steps_apart = [abs(a / b - 1) for a, b in zip(first["ours"], first["trainer"], strict=True)]
    common.say(f"  losses of ours and the peer: {first['ours'][1]:.7f} {first['trainer'][1]:.7f}")
    return common.result(
        f"{name}_loss_difference",
        steps_apart[1],
        "relative",
        bar="value <= 1e-4",
        ours=first["ours"][1],
        trainer=first["trainer"][1],
        largest_of_all_steps=max(steps_apart),
    )


def _memory_of(name: str, both: dict[str, list[Any]]) -> dict[str, Any]:
    peaks = {side: common.median([r["peak_mib"] for r in runs]) for side, runs in both.items()}
    return common.result(f"{name}_memory", peaks["ours"], "MiB", peer=PEER, peer_value=peaks["trainer"])


def train_memory_growth(quick: bool) -> list[dict[str, Any]]:
    """Peak memory of one step at four lengths: linear in the sequence, or not."""
    lengths = [256, 512, 1024, 2048] if quick else [2048, 4096, 8192, 16384]
    return [r for checkpointing in (True, False) for r in _growth(lengths, checkpointing)]


def _growth(lengths: list[int], checkpointing: bool) -> list[dict[str, Any]]:
    on = "checkpointing" if checkpointing else "no_checkpointing"
    common.say(f"train_memory_growth, {on}: {lengths}")
    ours = {n: _peak("ours", n, checkpointing) for n in lengths}
    theirs, why = _peer_peaks(lengths, checkpointing)
    short, long = lengths[1], lengths[3]
    peer_growth = theirs[long] / theirs[short] if long in theirs else None
    growth = common.result(
        f"train_memory_growth_{on}",
        ours[long] / ours[short],
        f"peak({long})/peak({short})",
        peer=PEER,
        peer_value=peer_growth,
        bar="value <= 4.2",
        mib=_by_length(ours),
        peer_mib=_by_length(theirs),
        peer_left_out=why,
    )
    at_longest = {"peer": PEER, "peer_value": theirs.get(long)}
    return [growth, common.result(f"train_memory_{long}_{on}", ours[long], "MiB", **at_longest)]


def _by_length(peaks: dict[int, float]) -> dict[str, float]:
    return {str(length): round(mib, 1) for length, mib in peaks.items()}


def _peak(side: str, length: int, checkpointing: bool, timeout: float | None = None) -> float:
    """MiB of one step above the loaded model."""
    common.wait_for_quiet()  # memory does not mind others, the peer's time limit does
    arguments = {"length": length, "count": 1, "checkpointing": checkpointing}
    mib: float = common.child(f"training:{side}", timeout, **arguments)["peak_mib"]
    common.say(f"  {side} {length}: {mib:.1f} MiB")
    return mib


def _peer_peaks(lengths: list[int], checkpointing: bool) -> tuple[dict[int, float], str | None]:
    """The peer at each length; its dense mask makes the longest slow, so it has three minutes."""
    found: dict[int, float] = {}
    for length in lengths:
        try:
            found[length] = _peak("trainer", length, checkpointing, timeout=180)
        except common.LeftOut as why:
            return found, f"{length} tokens: {why}"
    return found, None
