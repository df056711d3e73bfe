"""Imported once by the server that jobs are forked from: what every stage needs.

Nothing is computed and no GPU is asked here: threads and a CUDA context do not survive a fork.
"""

import os

os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # looks without a context

from ropewalk.launch import cli  # noqa: E402

cli.load_libraries()
