"""Settings of `--multirun`: which runs a sweep has, how many at once, and of a search its budget.

No stage of a run depends on them, and the runs of a sweep do not have them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from ropewalk.conf.artifacts.folders import name_problem, shortened
from ropewalk.conf.rules import setting

KINDS = ("grid", "search")
SAMPLERS = ("tpe", "random")
PRUNERS = ("none", "median")


@dataclass(kw_only=True)
class SearchConfig:
    """`sweep=search`: settings that Optuna proposes, a run each; in `ropewalk[calibrate]`.

    What is searched is typed as values of a setting, `train.optimizer.lr=log(1e-5,1e-3)`, or stands
    in `space`.
    """

    space: dict[str, str] = setting(factory=dict)
    """Settings that are searched, each with its values: `interval(LOW,HIGH)`, `log(LOW,HIGH)` for a
    range of magnitudes, or `A,B,C`. A whole-number setting gets whole numbers."""
    objective: str = setting("results.extended.window_loss.nll")
    """What is optimised: `results.PATH` of a value in eval/results.json below `models`, such as
    `results.extended.perplexity.2048` or `results.extended.passkey[length=2048].accuracy` (several
    rows: their mean), or `metrics.KEY` of the last line of train/metrics.jsonl, such as
    `metrics.loss`."""
    direction: str = setting("minimize", one_of=("minimize", "maximize"))
    """Whether a lower or a higher objective is better."""
    trials: int = setting(20, at_least=1)
    """Most trials, those that failed or were pruned among them."""
    minutes: float | None = setting(None, above=0, way_out="e.g. 60")
    """Budget of the trials' time, summed over all of them; no trial starts after it is spent.
    Unset: none."""
    gpu_hours: float | None = setting(None, above=0, way_out="e.g. 8")
    """The same in hours x GPUs of a trial (on a machine without GPUs: x its ranks). Unset:
    none."""
    sampler: str = setting("tpe", one_of=SAMPLERS)
    """tpe (Tree-structured Parzen Estimator) or random."""
    pruner: str = setting("none", one_of=PRUNERS)
    """median: a trial whose training loss at a tenth, two tenths, ... of its steps is worse than
    the median of the earlier trials there is stopped and not measured; none: every trial ends."""


@dataclass(kw_only=True)
class SweepConfig:
    """A sweep: one command, several runs."""

    kind: str = setting("grid", one_of=KINDS)
    """grid: a run for each combination; search: runs that Optuna proposes one after the other."""
    name: str | None = setting(None)
    """Of the sweep: its folder is `runs_dir/sweeps/name`. Unset: the runs' name and what is
    swept."""
    pool: int = setting(1, at_least=1)
    """Runs at once on this machine. Above 1 each has its share of the cores and GPUs."""
    grid: dict[str, str] = setting(factory=dict)
    """Values by setting, as `-m` takes them (`rope: pi,ntk`); the command line's replace them."""
    fixed: dict[str, str] = setting(factory=dict)
    """Settings of all runs; the command line's replace them."""
    calibrated: dict[str, list[str]] = setting(factory=dict)
    """Values of `rope` in a sweep that are tables found by `ropewalk calibrate`, once for all runs
    of one base and data: the words of that command, by the value's name."""
    baseline: str | None = setting(None)
    """The run that the comparison counts differences from, or the value that such runs have, as
    `yarn`; unset: the first."""
    search: SearchConfig = setting(factory=SearchConfig)

    def problems(self, prefix: str) -> Iterator[str]:
        if self.name is not None and (reason := name_problem(self.name)):
            yield (
                f"{prefix}name is {shortened(self.name)!r}; it must be a plain folder name, and "
                f"{reason}; e.g. {prefix}name=my-sweep"
            )
