"""Perplexity as Position Interpolation reports it (arXiv 2306.15595, section 3.2).

Windows slide by 256 tokens, after Press et al. 2022, and the new tokens of each count. What stands
before a window is not in the paper: it is laid out as by the YaRN repository's script, which was
validated against the paper's figures by its authors.
"""

from ropewalk.conf.eval_language import PiCompatConfig
from ropewalk.eval.measure.loss_rows import Row
from ropewalk.eval.tasks.sliding_windows import SlidingLayout, SlidingTask, default_stride
from ropewalk.eval.tasks.task import EvalSuite
from ropewalk.eval.tasks.texts import prepended


class PiCompat(SlidingTask):
    name = "pi_compat"
    title = "Perplexity as in PI"
    description = "Loss under sliding windows as in PI, by their size"
    length_key = "min_tokens"

    def settings(self, suite: EvalSuite) -> PiCompatConfig:
        return suite.config.pi_compat

    def min_tokens(self, suite: EvalSuite) -> int:
        return self.settings(suite).min_tokens or max(self.windows(suite)) // 2

    def layout(self, suite: EvalSuite, window: int) -> SlidingLayout:
        settings = self.settings(suite)
        stride, most = settings.stride or default_stride(window), settings.max_tokens
        return SlidingLayout(self.name, window, stride, most or suite.length, suite.bos)

    def facts(self, suite: EvalSuite) -> Row:
        return super().facts(suite) | {"prepended": prepended(suite)}
