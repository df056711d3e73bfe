"""Settings of the gates: how much may be lost, and which answers decide the exit code."""

from dataclasses import dataclass

from ropewalk.conf.rules import setting


@dataclass(kw_only=True)
class GatesConfig:
    """What the extended model may lose against its base, and which losses decide.

    A gate passes when the whole 95% interval of the loss is below the tolerance, fails when all of
    it is above, and is undecided in between.
    """

    inside_nats: float = setting(0.05, above=0)
    """Most loss per token inside the original window of the held-out windows, nats."""
    short_nats: float = setting(0.02, above=0)
    """Most loss per token on short held-out documents, nats."""
    points: float = setting(1.0, above=0)
    """Most loss of accuracy in a task of `short_context.lm_eval`, percentage points."""
    deciding: list[int] = setting(
        factory=lambda: [1, 5], at_least=1, at_most=5, way_out="give questions from 1 to 5"
    )
    """The questions whose gates decide the exit code of run and eval (3 when one fails), tested
    together (Holm): 1 is the loss past the window, 2 far text, 3 retrieval, 4 more than retrieval,
    5 the cost inside the window. The others are shown."""
