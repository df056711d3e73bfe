"""Starting without the collector: it is back afterwards, whatever happened."""

import gc

import pytest

from ropewalk.train.launcher.process import gc_paused_imports


@pytest.mark.parametrize("error", [None, ImportError])
def test_the_collector_rests_inside_and_is_back_after(error: type[Exception] | None) -> None:
    try:
        with gc_paused_imports():
            inside = gc.isenabled()
            if error:
                raise error
    except ImportError:
        pass
    assert (inside, gc.isenabled()) == (False, True)
    assert gc.get_freeze_count() > 0
    gc.unfreeze()
