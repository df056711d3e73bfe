#!/usr/bin/env bash
# The GPU tests on a machine without a network, in four calls of at most ten minutes:
#     ./run.sh 1 && ./run.sh 2 && ./run.sh 3 && ./run.sh 4
# A call that is ended by its time is made again and goes on where it was. Each prints the figures.
#     1  what this machine has, and the attention kernels
#     2  trainings: loss, kernels at length, memory, MFU
#     3  the demo from the command line, checkpoints, resume
#     4  the rest: on two or more GPUs the parity matrix, killed ranks, other meshes
set -euo pipefail
cd "$(dirname "$0")"
STAGE=${1:?a stage: 1, 2, 3 or 4}
PYTHON=${PYTHON:-python3}
SECONDS_A_CALL=${SECONDS_A_CALL:-570}

if [ ! -e site/.installed ]; then
    "$PYTHON" -m pip install --quiet --no-index --no-deps --target site wheels/*.whl
    touch site/.installed
fi
export PYTHONPATH="$PWD/site:$PWD/tests/gpu_kit" ROPEWALK_COMMIT=$(cat COMMIT)
export KIT_FINISHED="$PWD/finished-tests" HF_HUB_OFFLINE=1 WANDB_MODE=offline
unset DS_ACCELERATOR OMP_NUM_THREADS

"$PYTHON" - <<'PROGRAM'
import importlib, inspect, sys
import torch, ropewalk.conf
if not torch.cuda.is_available():
    sys.exit(f"no CUDA device: torch {torch.__version__} sees no GPU; run this where there is one")
for number in range(torch.cuda.device_count()):
    properties = torch.cuda.get_device_properties(number)
    print(f"{properties.name}, {properties.total_memory / 1e9:.0f} GB, "
          f"compute capability {properties.major}.{properties.minor}")
print("torch", torch.__version__, "CUDA", torch.version.cuda)
for module, name in (("torch.nn.attention.varlen", "varlen_attn"),
                     ("flash_attn", "flash_attn_varlen_func"),
                     ("flash_attn_interface", "flash_attn_varlen_func"),
                     ("flash_attn.cute", "flash_attn_varlen_func")):
    try:
        print(f"{module}.{name}{inspect.signature(getattr(importlib.import_module(module), name))}")
    except Exception as error:
        print(f"{module}.{name}: {error}")
PROGRAM

gpu_files() {  # other files may import what this machine lacks
    grep -rl --include='test_*.py' 'pytest\.mark\.gpu' "$@"
}
KEYWORDS=""
case $STAGE in
    1) FILES=$(gpu_files tests/train/attention) ;;
    2)
        FILES=$(gpu_files tests/train/test_gpu.py tests/train/memory)
        KEYWORDS="not (demo or adapter or checkpoint or resumed)"
        ;;
    3) FILES=$(gpu_files tests/train/test_gpu.py tests/train/zero) ;;
    4) FILES=$(gpu_files tests) ;;
    *) echo "a stage is 1, 2, 3 or 4" >&2; exit 2 ;;
esac
CODE=0
timeout --signal INT "$SECONDS_A_CALL" "$PYTHON" -m pytest -m gpu -q -p kit_resume \
    -p no:cacheprovider -k "$KEYWORDS" $FILES || CODE=$?
echo
"$PYTHON" tests/helpers/gpu_page.py
case $CODE in
    0 | 5) echo "stage $STAGE is done" ;;  # 5: an earlier call ran every test of it
    124 | 130) echo "stage $STAGE ran out of its time: call it again"; exit 3 ;;
    *) echo "stage $STAGE: see the failures above"; exit 1 ;;
esac
