"""Perplexity of windows that slide over held-out documents, begun as training documents are."""

from ropewalk.conf.eval_language import SlidingConfig
from ropewalk.eval.tasks.sliding_windows import SlidingLayout, SlidingTask
from ropewalk.eval.tasks.task import EvalSuite


class SlidingPerplexity(SlidingTask):
    name = "sliding"
    title = "Sliding window"
    description = "Loss under sliding windows, by their size"
    length_key = "windows"

    def settings(self, suite: EvalSuite) -> SlidingConfig:
        return suite.config.sliding

    def min_tokens(self, suite: EvalSuite) -> int:
        """Text that fills the longest window."""
        return max(self.windows(suite)) - suite.boundary_tokens.before

    def layout(self, suite: EvalSuite, window: int) -> SlidingLayout:
        settings = self.settings(suite)
        stride = settings.stride or max(1, window // 2)
        most = settings.max_tokens or max(self.windows(suite))
        return SlidingLayout(self.name, window, stride, most, suite.boundary_tokens.begin)
