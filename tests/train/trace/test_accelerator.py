"""What is one kernel on a GPU is one operation in a trace, by torch's own table of kernels."""

import json
import os
import subprocess
import sys

import torch

from ropewalk.train.trace.child import ENVIRONMENT

HAS_KERNEL = torch._C._dispatch_has_kernel_for_dispatch_key
OF_CUDA_ONLY = {"aten::_fused_rms_norm"}
"""Called by torch.rms_norm on CUDA alone; transformers' norms are written out."""
PROGRAM = """
import json
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from ropewalk.train.trace.accelerator import register

seen = []

class Seen(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        seen.append(func._schema.name)
        return func(*args, **(kwargs or {}))

device = register()
has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
with torch.autograd.set_multithreading_enabled(False), FakeTensorMode(), Seen():
    x = torch.empty(8, 8, device=device, requires_grad=True)
    y = torch.nn.functional.silu(x)
    gradient = torch.empty_like(y)
    seen.clear()
    y.backward(gradient)
names = ["aten::silu_backward", "aten::mish_backward"]
print(json.dumps([seen, [name for name in names if has_kernel(name, "PrivateUse1")]]))
"""


def test_the_gate_of_an_mlp_is_one_operation_in_the_backward_pass() -> None:
    """Its temporaries would be three of the widest tensors of a layer."""
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    seen, kernels = json.loads(done.stdout.splitlines()[-1])
    views = ("prim::device", "aten::detach", "aten::alias")
    assert [name for name in seen if name not in views] == ["aten::silu_backward"]
    assert {*kernels, *OF_CUDA_ONLY} == of_cuda_with_a_detour()


def of_cuda_with_a_detour() -> set[str]:
    """Operations that CUDA has a kernel for, and other devices compute by other operations."""
    names = set()
    for schema in torch._C._jit_get_all_schemas():
        name = f"{schema.name}.{schema.overload_name}".rstrip(".")
        if schema.name.startswith("aten::") and _has(name, "CUDA"):
            names |= {name} if _has(name, "CompositeImplicitAutograd") else set()
    return names


def _has(name: str, key: str) -> bool:
    try:
        return bool(HAS_KERNEL(name, key))
    except RuntimeError:  # a schema of TorchScript alone
        return False
