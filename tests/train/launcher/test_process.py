"""Imports without the garbage collector or a package: all is as before afterwards, after an error
too."""

import gc
import subprocess
import sys

import pytest

from ropewalk.train.launcher.process import gc_paused_imports, without_package


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


def test_a_package_is_not_installed_inside_and_is_after() -> None:
    assert "wave" not in sys.modules
    with without_package("wave"), pytest.raises(ImportError):
        import wave
    import wave  # noqa: F811

    with without_package("wave"):
        assert sys.modules["wave"] is wave


def test_a_rank_s_imports_leave_mlflow_out_and_it_can_be_imported_after() -> None:
    """DeepSpeed's tuner imports it, which this test would show if a rank did not leave it out."""
    pytest.importorskip("mlflow")
    program = (
        "import sys; from ropewalk.train.launcher.process import without_package\n"
        "with without_package('mlflow'): import deepspeed\n"
        "assert 'mlflow' not in sys.modules\n"
        "import mlflow; print(mlflow.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split()[-1:] == ["mlflow"], done.stderr
