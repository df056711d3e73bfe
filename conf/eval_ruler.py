"""Settings of the RULER task."""

from collections.abc import Iterator
from dataclasses import dataclass

from ropewalk.conf.rules import setting

CONFIGURATIONS = (
    *("smoke", "progress", "all", "niah_single_1", "niah_single_2", "niah_single_3"),
    *("niah_multikey_1", "niah_multikey_2", "niah_multikey_3", "niah_multivalue"),
    *("niah_multiquery", "vt", "cwe", "fwe", "qa_1", "qa_2"),
)
"""The groups and the configurations of eval/ruler/configurations.py."""
MODES = ("ruler_exact", "ruler")


@dataclass(kw_only=True)
class RulerConfig:
    """Which of RULER's questions are asked, and how their prompts are built."""

    configurations: list[str] = setting(
        factory=lambda: ["progress"], one_of=CONFIGURATIONS, way_out="leave it out"
    )
    """Configurations by name, or groups: smoke (niah_single_1, vt), progress (niah_single_2,
    niah_multikey_2, niah_multikey_3, niah_multivalue, vt), all. One that is named itself must be
    measurable; one of a group is reported as not measurable where its data are absent."""
    mode: str = setting("ruler_exact", one_of=MODES)
    """ruler_exact (full prompts, the answer's place swept, orders drawn for each sample) or ruler
    (sizes in steps and fixed orders, as published numbers have them; its wording is read from the
    installed lm-eval)."""
    form: str = setting("base", one_of=("base", "chat"))
    """base (plain text) or chat (the question in the model's chat template)."""
    samples: int = setting(50, at_least=1)
    """Questions of each configuration and length."""
    lengths: list[int] | None = setting(None, at_least=64, way_out="unset it for the default")
    """Prompt and answer together, tokens; unset: the original window, doubled up to
    `eval.length`, without those at which a configuration does not fit."""
    shots: int | None = setting(None, at_least=0, at_most=8, way_out="unset it for RULER's own")
    """Solved examples before a question; unset: RULER's own, one for vt and cwe and none for the
    others. Mode ruler_exact only."""
    trailing_space: bool = setting(True)
    """Whether a prompt ends with a space where RULER's does (vt): a byte-level tokenizer then
    begins the answer without its usual token. Mode ruler only."""
    wording: str | None = None
    """YAML file with the texts of the prompts; unset: our own (ruler_exact), or the installed
    lm-eval's with its slips put right (ruler)."""
    words: str | None = None
    """File with one word a line, for keys and lists; unset: the installed wonderwords, or
    pronounceable words."""
    haystack: str | None = None
    """File or folder of .txt files with prose; unset: the held-out text."""
    squad: str | None = None
    """SQuAD 2.0's JSON file, for qa_1."""
    hotpotqa: str | None = None
    """HotpotQA's JSON file of the distractor setting, for qa_2."""

    def problems(self, prefix: str) -> Iterator[str]:
        if self.shots is not None and self.mode == "ruler":
            yield (
                f"{prefix}shots is {self.shots}; mode ruler has RULER's own examples; unset it, or "
                f"set {prefix}mode=ruler_exact"
            )
