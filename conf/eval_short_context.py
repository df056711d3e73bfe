"""Settings of the short-context gate: documents inside the base's window, and outside tasks."""

from dataclasses import dataclass

from ropewalk.conf.rules import setting


@dataclass(kw_only=True)
class LmEvalConfig:
    """Tasks of lm-evaluation-harness, asked of every column with the base's window."""

    tasks: list[str] = setting(factory=list, fingerprint="if_set")
    """Tasks or groups by their names there, whose answers are judged by their likelihood
    (multiple_choice, loglikelihood), e.g. [hellaswag, mmlu]; empty: none."""
    include_path: str | None = setting(None, fingerprint="if_set")
    """A folder with YAML files of further tasks, which may read local JSON: nothing is downloaded
    for these."""
    limit: int | None = setting(None, at_least=1, fingerprint="if_set")
    """Documents of each task; unset: all."""
    num_fewshot: int | None = setting(None, at_least=0, fingerprint="if_set")
    """Solved examples in front of each question; unset: as the task says."""


@dataclass(kw_only=True)
class ShortContextConfig:
    """What short text has cost."""

    documents: int = setting(128, at_least=1)
    """Held-out documents whose first tokens are read: as many as the base's window has, half and a
    quarter of it, in turn, or the whole of a shorter one."""
    lm_eval: LmEvalConfig = setting(factory=LmEvalConfig)
