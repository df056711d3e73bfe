"""The figures of perplexity and of one window, read from the SVG text that is drawn."""

import math
import re

from ropewalk.eval.report.figures import rope
from ropewalk.eval.report.figures.perplexity import perplexity_figure


def texts(drawing: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]+)</text>", drawing)


def test_the_scale_of_perplexity_is_in_perplexity() -> None:
    rows = [
        {"length": n, "perplexity": value, "low": 0.9 * value, "high": 1.1 * value}
        for n, value in ((1024, 8.0), (2048, 6.0), (4096, 5.0))
    ]
    words = texts(str(perplexity_figure({"base": rows}, 1024, "p", "length", "Perplexity")))
    assert "perplexity" in words and "nats per token" not in words
    numbers = [float(word) for word in words if re.fullmatch(r"\d(\.\d+)?", word)]
    assert len(numbers) >= 3 and all(4 < number < 9.5 for number in numbers)
    steps = [math.log(b / a) for a, b in zip(numbers, numbers[1:], strict=False)]
    assert max(steps) - min(steps) < 0.02  # the ticks are even in the loss


def test_one_window_has_one_label() -> None:
    rows = [{"index": n, "before": 10.0**n, "after": 10.0**n} for n in range(4)]
    plan = {"original_max_position_embeddings": 256, "max_position_embeddings": 256}
    words = texts(str(rope.wavelengths(plan, rows)))
    assert [word for word in words if "window" in word] == ["window: 256 tokens"]
    words = texts(str(rope.wavelengths({**plan, "max_position_embeddings": 512}, rows)))
    assert [w.split(":")[0] for w in words if "window" in w] == ["original window", "new window"]
