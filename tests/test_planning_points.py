"""The published runs beside which docs/planning.md puts a plan."""

from collections import Counter

import planning
import pytest
from planning_points import KNOWN, Memory, Speed, points

MEMORY: list[Memory] = points(Memory, "published_memory.yaml")
SPEED: list[Speed] = points(Speed, "published_speeds.yaml")
DOCUMENT = planning.DOCUMENT.read_text()
KINDS = {"reserved", "nvml", "allocated", "unknown", "limit"}


def row(run: str, columns: int) -> list[str]:
    """The cells of a run's row in one of the two tables."""
    rows = [
        line.split("|")[1:-1] for line in DOCUMENT.splitlines() if line.startswith(f"| {run} |")
    ]
    (cells,) = [[cell.strip() for cell in one] for one in rows if len(one) == columns]
    return cells


def test_there_are_sixty_runs_and_each_says_where_it_is_from() -> None:
    assert len(MEMORY) + len(SPEED) >= 60
    for names in ([one.run for one in MEMORY], [one.run for one in SPEED]):
        assert max(Counter(names).values()) == 1
    named = [(one.source, one.model) for one in MEMORY]
    for source, model in [*named, *((one.source, one.model) for one in SPEED)]:
        assert source in KNOWN["sources"] and model in KNOWN["models"]
    assert {point.kind for point in MEMORY} <= KINDS
    assert all(point.kind in ("reserved", "nvml", "allocated") for point in MEMORY if point.held)


@pytest.mark.parametrize("point", MEMORY, ids=lambda point: point.run)
def test_each_peak_is_in_the_document(point: Memory) -> None:
    _, published, kind, _, expandable, native, _, inside, _ = row(point.run, 9)
    assert published.removeprefix("<= ") == str(point.published) and kind == point.kind
    planned = {"expandable": float(expandable), "native": float(native)}
    if point.held:
        assert (inside == "yes") == planning.is_inside(point.published, planned)


@pytest.mark.parametrize("point", SPEED, ids=lambda point: point.run)
def test_each_speed_is_in_the_document(point: Speed) -> None:
    _, published, ours, ratio, _ = row(point.run, 5)
    assert float(published.replace(",", "")) == pytest.approx(point.tokens_per_s, abs=0.5)
    assert float(ours.replace(",", "")) / point.tokens_per_s == pytest.approx(
        float(ratio), abs=0.01
    )


def test_nemo_s_tflops_count_attention_as_a_full_square() -> None:
    """Llama-2-7B: 6 x 6.6e9 a token for the products with the head, 12 S E L for attention."""
    (point,) = [one for one in SPEED if one.run.startswith("Llama-2-7B, 1M,")]
    products = 6 * (6.738e9 - 32_000 * 4096)
    attention = 12 * 1_048_576 * 4096 * 32
    assert point.tokens_per_s == pytest.approx(536e12 / (products + attention), rel=1e-3)
