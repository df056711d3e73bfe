"""Items dealt over ranks come back in order, on every rank, each done once."""

import pytest
import ranks
import scoring_ranks

from ropewalk.eval.measure import dealing


@pytest.mark.parametrize("in_step", [False, True])
@pytest.mark.parametrize("count", [0, 1, 3, 8])
def test_every_rank_has_all_results_and_did_its_share(count: int, in_step: bool) -> None:
    size = 3
    results = ranks.run(size, scoring_ranks.dealt, count, in_step)
    assert all(squares == [n**2 for n in range(count)] for squares, _ in results)
    for rank, (_, done) in enumerate(results):
        share = list(range(rank, count, size))
        assert done[: len(share)] == share
        assert len(done) == (-(-count // size) if in_step else len(share))


@pytest.mark.parametrize("in_step", [False, True])
def test_groups_of_ranks_do_an_item_together(in_step: bool) -> None:
    results = ranks.run(4, scoring_ranks.dealt, 3, in_step, 2)
    assert all(squares == [0, 1, 4] for squares, _ in results)
    second = [1, 2] if in_step else [1]
    assert [done for _, done in results] == [[0, 2], [0, 2], second, second]


def test_one_process_does_all(count: int = 5) -> None:
    assert scoring_ranks.dealt(count, True) == ([0, 1, 4, 9, 16], [0, 1, 2, 3, 4])


@pytest.mark.parametrize(
    ("rank", "in_step", "worked"),
    [(0, False, [0, 3]), (1, False, [1]), (2, False, [2]), (1, True, [1, 3]), (2, True, [2, 3])],
)
def test_a_rank_without_an_item_works_only_in_step(
    monkeypatch: pytest.MonkeyPatch, rank: int, in_step: bool, worked: list[int]
) -> None:
    """Four items on three ranks: in the second round two have none."""
    monkeypatch.setattr(dealing, "rank_and_size", lambda: (rank, 3))
    monkeypatch.setattr(
        dealing.dist, "all_gather_object", lambda results, done: results.__setitem__(rank, done)
    )
    done = list[int]()

    def work(item: int) -> int:
        done.append(item)
        return item

    rounds = list(dealing.deal(range(4), work, in_step=in_step))
    assert done == worked and [len(part) for part in rounds] == [3, 1]
    assert rounds[0][rank] == rank
