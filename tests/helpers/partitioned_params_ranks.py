"""Programs of a rank in test_params.py: build, prove and train a model partitioned by ZeRO 3."""

from pathlib import Path
from typing import Any

import torch
from feeds import config, feed, train_steps
from parity_ranks import in_pieces
from transformers.models.llama import modeling_llama

from ropewalk.conf.errors import ProofError, RopewalkError
from ropewalk.conf.lora import LoraConfig
from ropewalk.train import attention
from ropewalk.train.adapters import attach
from ropewalk.train.base import Base
from ropewalk.train.model import build, save
from ropewalk.train.rope import proof
from ropewalk.train.rope.plan import RopePlan
from ropewalk.train.zero import engine, params
from ropewalk.train.zero.config import deepspeed_config
from ropewalk.train.zero.mesh import Mesh


def built(base: Base, plan: RopePlan, train: dict[str, Any]) -> tuple[Any, Any, bool]:
    """Model, engine, and whether every parameter was in pieces before there was one."""
    settings = config(**train)
    made = build.build(
        base,
        plan,
        dtype=torch.float32,
        seed=3,
        compute_dtype=torch.bfloat16 if train["precision"] == "bf16" else torch.float32,
        deepspeed_config=deepspeed_config(settings.train, 1),
    )
    apart = all(p.numel() == 0 for p in made.parameters())
    build.check_vocabulary(made, 97)
    live = engine.build_engine(made, settings, 1, Mesh.of(1))
    proof.restore(made, plan)
    return made, live, apart


def weights(base: Base, plan: RopePlan, train: dict[str, Any]) -> dict[str, Any]:
    made, live, apart = built(base, plan, train)
    message = proof.prove(made, plan, "in its engine")
    attention.prove_documents_isolated(made)
    result = {
        name: t.float().numpy()
        for name, t in save.gather_full_state_dict(made.named_parameters()).items()
    }
    live.destroy()
    return {"apart": apart, "said": message, "weights": result}


def losses(base: Base, plan: RopePlan, train: dict[str, Any], lora: LoraConfig) -> list[float]:
    """Three steps, with an adapter put beside the parameters where they lie."""
    settings, mesh = config(lora=lora, **train), Mesh.of(1)
    given = deepspeed_config(settings.train, 1)
    made = build.build(
        base, plan, dtype=torch.float32, compute_dtype=torch.float32, deepspeed_config=given
    )
    attach.attach(made, lora, 0)
    with in_pieces():
        live = engine.build_engine(made, settings, 1, mesh)
    result = [line["loss"] for line in train_steps(live, settings, feed(mesh, 1), range(3))]
    groups = {getattr(p, "ds_secondary_tensor_num_of_groups", 1) for p in made.parameters()}
    assert groups == {
        mesh.world_size // train["memory__zero_hpz_size"] if "memory__zero_hpz_size" in train else 1
    }
    live.destroy()
    return result


def refused(base: Base, plan: RopePlan, train: dict[str, Any]) -> dict[str, str]:
    """What the proofs and the check of the vocabulary say of a model in pieces that is wrong."""
    made, live, _ = built(base, plan, train)
    plain = modeling_llama.apply_rotary_pos_emb
    modeling_llama.apply_rotary_pos_emb = lambda q, k, *args, **kwargs: (q, k)
    message = {"layers": _error(lambda: proof.prove(made, plan, "in the test"))}
    modeling_llama.apply_rotary_pos_emb = plain
    module = next(iter(proof.rotary_modules(made).values()))
    module.inv_freq = module.inv_freq * 1.01
    message["table"] = _error(lambda: proof.prove(made, plan, "in the test"))
    message["words"] = _error(lambda: build.check_vocabulary(made, 98))
    live.destroy()
    return message


def _error(work: Any) -> str:
    try:
        work()
    except (ProofError, RopewalkError) as error:
        return str(error)
    return ""


def peak_of_load(base: Base, plan: RopePlan, train: dict[str, Any]) -> dict[str, float]:
    """Growth of this rank's own memory (not of files it maps), in MB, while the model is made: highest and at the end."""
    import ctypes
    import threading

    ctypes.CDLL(None).mallopt(
        -3, 1 << 16
    )  # M_MMAP_THRESHOLD: what is freed goes back to the system at once

    def own() -> float:
        lines = dict(
            line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines()
        )
        return int(lines["RssAnon"].split()[0]) / 1024

    before, highest, done = own(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            highest[0] = max(highest[0], own() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    settings = config(**train)
    made = build.build(
        base, plan, dtype=torch.float32, deepspeed_config=deepspeed_config(settings.train, 1)
    )
    done.set()
    watcher.join()
    assert params.is_partitioned(made)
    return {"highest": highest[0], "after": own() - before}
