"""What a page may show: results that were made from what the run is now."""

from ropewalk.launch.stages import agrees

TRAINED = {"base": "a", "seed": 0, "inputs": {"rope": "r", "data": "d"}}


def test_what_was_made_from_the_same_agrees() -> None:
    assert agrees(TRAINED, {"base": "a", "seed": 0})
    assert agrees(TRAINED["inputs"], {"rope": "r", "data": "d"})  # type: ignore[arg-type]


def test_another_base_seed_or_input_does_not() -> None:
    assert not agrees(TRAINED, {"base": "b", "seed": 0})
    assert not agrees(TRAINED, {"base": "a", "seed": 1})
    assert not agrees(TRAINED["inputs"], {"rope": "other", "data": "d"})  # type: ignore[arg-type]


def test_what_it_does_not_name_is_no_matter() -> None:
    assert agrees(TRAINED, {"eval": {"windows": 3}})
