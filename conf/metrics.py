"""Settings of metrics, validation and profiler. They do not affect the trained model."""

from collections.abc import Iterator
from dataclasses import dataclass

from ropewalk.conf.rules import setting

VALIDATION_TASKS = ("nll_by_position", "json_kv")
"""Names as in eval/tasks/."""


@dataclass(kw_only=True)
class MetricsConfig:
    """Numbers of each step, and where they go beside metrics.jsonl."""

    group_norms_every: int = setting(1, at_least=0, way_out="0 leaves it out")
    """Steps between two measurements of the gradient's norm by group of parameters; 0: never.
    Each reads a rank's gradients once."""
    peak_tflops: float | None = setting(None, above=0, way_out="unset it for the published one")
    """TFLOP/s of one device at the training's precision, for MFU; unset: the published bf16
    figure of a known GPU."""
    wandb: str = setting("auto", one_of=("auto", "online", "offline", "off"))
    """Weights & Biases: auto (online with an API key, else offline), online, offline or off."""
    wandb_project: str = "ropewalk"
    """Project that the run is logged to, of Weights & Biases and trackio; mlflow's experiment."""
    wandb_entity: str | None = setting(None, way_out="unset it for your own account")
    """Team or user of Weights & Biases; unset: the account of the key."""
    tags: list[str] = setting(factory=list)
    """Words that the run is found by in the trackers."""
    group: str | None = setting(None, way_out="unset it")
    """Runs that a tracker shows together; a sweep sets its own name."""
    notes: str | None = setting(None, way_out="unset it")
    """A text about the run, for the trackers."""
    tensorboard: bool = False
    """Also write TensorBoard events, to train/tensorboard/."""
    trackio: bool = False
    """Also log to trackio: its own local store (`trackio show`), or a Space by its variables."""
    mlflow: bool = False
    """Also log to mlflow: to MLFLOW_TRACKING_URI, else to train/mlflow/."""


@dataclass(kw_only=True)
class ValidationConfig:
    """Held-out loss and key-value retrieval during the training."""

    interval_steps: int | None = setting(0, at_least=0, way_out="0 leaves validation out")
    """Steps between two measurements; the last step is always followed by one; 0: never; null:
    the fewest, at least 50, with which the measurements have at most 4% of the training's FLOPs."""
    tasks: list[str] = setting(
        factory=lambda: list(VALIDATION_TASKS), one_of=VALIDATION_TASKS, way_out="leave it out"
    )
    """What is measured: nll_by_position (held-out loss) and json_kv (values of a JSON object asked
    for by their keys, as eval asks them; by a greedy verdict in one pass, without decoding)."""
    windows: int = setting(8, at_least=1)
    """Windows of held-out text; at most `windows_per_document` of one document."""
    windows_per_document: int = setting(2, at_least=1)
    """Most windows that one held-out document may give."""
    haystacks: int = setting(16, at_least=1)
    """JSON objects of json_kv."""
    positions: int = setting(4, at_least=1)
    """Questions about each of them, from start to end. They share one forward pass; with a
    `train.sp_size` that does not divide the attention heads each takes its own."""
    length: int | None = setting(None, at_least=2, way_out="unset it for data.seq_len")
    """Tokens of a window, and of a JSON object with question and answer; unset: `data.seq_len`."""

    @property
    def is_on(self) -> bool:
        return self.interval_steps != 0

    def problems(self, prefix: str) -> Iterator[str]:
        if self.is_on and not self.tasks:
            yield (
                f"{prefix}tasks is empty; there must be something to measure; name one of "
                f"{', '.join(VALIDATION_TASKS)}, or set {prefix}interval_steps=0"
            )


@dataclass(kw_only=True)
class ProfilerConfig:
    """torch.profiler on a few steps."""

    steps: list[int] = setting(factory=list)
    """First and last step (from 1) of the window that is traced to train/profile/; empty: none."""
    ranks: str = setting("first", one_of=("first", "all"))
    """first (rank 0) or all."""
    memory: bool = False
    """Also record the allocations of a CUDA device."""

    def step_problems(self, prefix: str, steps: int) -> Iterator[str]:
        """`steps`: of the training."""
        if self.steps and not (len(self.steps) == 2 and 1 <= self.steps[0] <= self.steps[1]):
            yield (
                f"{prefix}steps is {self.steps}; it must be a first and a last step, from 1; e.g. "
                "[10, 12]"
            )
        elif self.steps and self.steps[0] > steps:
            yield (
                f"{prefix}steps is {self.steps}; the training has {steps} steps, so nothing would "
                "be recorded; name earlier ones"
            )
