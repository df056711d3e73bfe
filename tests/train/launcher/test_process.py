"""Imports without the garbage collector: it is enabled again afterwards, after an error too."""

import gc

import pytest

from ropewalk.train.launcher.process import gc_paused_imports


@pytest.mark.parametrize("error", [None, ImportError])
def test_the_collector_is_disabled_inside_and_enabled_after(error: type[Exception] | None) -> None:
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
