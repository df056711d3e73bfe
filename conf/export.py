"""Settings of export: the GGUF file, the model's card, and where it is pushed to."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ropewalk.conf.rules import setting

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
BENCHMARK = re.compile(rf"{REPOSITORY.pattern}:[\w.-]+")


@dataclass(kw_only=True)
class ExportConfig:
    """Files for serving engines, the card, and the hub."""

    gguf: str = setting("f16", one_of=("f32", "f16", "bf16", "off"))
    """The weights of the GGUF file for llama.cpp: f32, f16 or bf16; off: no such file."""
    license: str | None = setting(None, fingerprint="if_set", way_out="e.g. apache-2.0")
    """The model's licence for its card, by the hub's word for it; unset: that of the base, where
    its own card says one."""
    benchmarks: dict[str, str] = setting(factory=dict, fingerprint="if_set")
    """Benchmarks that are registered on the hub, by the lm-eval task of
    `eval.short_context.lm_eval.tasks` that measures them, such as
    `{gsm8k: "openai/gsm8k:gsm8k"}` (DATASET:TASK): their results are written to `.eval_results/`,
    which the hub shows on the benchmark's leaderboard."""
    push: str | None = setting(None, fingerprint=False, way_out="e.g. my-name/my-model")
    """A repository of the hub (USER/NAME) that `ropewalk export` pushes hf/ to; unset: none."""
    private: bool = setting(True, fingerprint=False)
    """Whether that repository is private. A public one is only pushed to with false."""

    def problems(self, prefix: str) -> Iterator[str]:
        if self.push is not None and not REPOSITORY.fullmatch(self.push):
            yield (
                f"{prefix}push is {self.push}; it must be USER/NAME, a repository of the hub; "
                "e.g. my-name/my-model"
            )
        for task, benchmark in self.benchmarks.items():
            if not BENCHMARK.fullmatch(benchmark):
                yield (
                    f"{prefix}benchmarks.{task} is {benchmark}; it must be DATASET:TASK, as the "
                    "benchmark's page on the hub has them; e.g. openai/gsm8k:gsm8k"
                )
