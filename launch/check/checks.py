"""The checks of a rank, in order. Every rank runs them; the first rank's lines count."""

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from ropewalk.conf import hardware_file
from ropewalk.conf.hardware_file import Hardware
from ropewalk.launch.check import (
    batches,
    collectives,
    nccl_log,
    numbers,
    resume,
    speed,
    transport,
)
from ropewalk.launch.check.caches import caches_line, shared_caches
from ropewalk.launch.check.equal_hosts import equal_lines
from ropewalk.launch.check.facts import HostFacts, host_facts
from ropewalk.launch.check.host import HostNeeds, gpu_line, host_lines
from ropewalk.launch.check.line import Line
from ropewalk.launch.check.real_step import real_step_lines
from ropewalk.launch.check.rehearsal import Rehearsal
from ropewalk.launch.check.shared_folder import shared_folder_lines
from ropewalk.launch.check.small_training import (
    Measured,
    SmallTraining,
    in_one_process,
    step_of,
)
from ropewalk.launch.check.together import Ranks
from ropewalk.train import attention
from ropewalk.train.assemble import build_model, compute_dtype
from ropewalk.train.loop.trainer import Trainer
from ropewalk.train.loss_model import LossModel
from ropewalk.train.rope import proof
from ropewalk.train.zero.mesh import Mesh, device


@dataclass(frozen=True)
class Check:
    """One check. Collective: every rank runs it, and the first rank's lines count."""

    name: str
    run: Callable[["Rank"], list[Line]]


class Rank:
    """What the checks of a rank share. Each part is made at its first use, by all ranks alike."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        self.rehearsal, self.ranks = rehearsal, Ranks.of_world()
        self.config = rehearsal.config
        self.mesh = Mesh.of(self.config.train.sp_size, self.config.train.memory.zero_hpz_size)

    @cached_property
    def hardware(self) -> Hardware | None:
        """The file of this rank's device, where it has one."""
        name = torch.cuda.get_device_name() if device().type == "cuda" else ""
        return hardware_file.of_device(name)

    @cached_property
    def small(self) -> SmallTraining:
        return self.rehearsal.small(self.ranks)

    @cached_property
    def trainer(self) -> Trainer:
        """With the user's sp_size, ZeRO stage and memory settings."""
        return self.small.trainer("parallel")

    @cached_property
    def alone(self) -> tuple[Measured, LossModel]:
        """The batch in one process: sp_size 1, no ZeRO, nothing recomputed or moved."""
        inputs = self.small.inputs("alone", sp_size=1, zero_stage=0)
        memory = replace(inputs.config.train.memory, zero_hpz_size=None, offload_optimizer=False)
        train = replace(inputs.config.train, memory=replace(memory, offload_params=False))
        return in_one_process(replace(inputs, config=replace(inputs.config, train=train)))


def _hosts(rank: Rank) -> list[Line]:
    """All ranks' facts, taken right after a barrier."""
    rank.ranks.barrier()
    facts = rank.ranks.gather(host_facts(rank.ranks.rank))
    lines = equal_lines(facts)
    lines.append(caches_line(rank.ranks.gather(shared_caches())))
    lines += [gpu_line(other) for other in facts if other.gpu] or [gpu_line(facts[0])]
    return lines + list(_other_hosts(facts))


def _other_hosts(facts: list[HostFacts]) -> Iterator[Line]:
    """What the command checked of its own machine, of the others."""
    by_host = {x.host: x for x in reversed(facts)}
    here = facts[0].host
    for host in sorted(set(by_host) - {here}):
        ranks = sum(x.host == host for x in facts)
        needs = HostNeeds(ranks, len(facts), device().type == "cuda", 0, len(by_host))
        yield from host_lines(by_host[host], needs, f" on {host}")


def _shared_folder(rank: Rank) -> list[Line]:
    return shared_folder_lines(rank.rehearsal.folder / "shared", rank.ranks)


def _speed(rank: Rank) -> list[Line]:
    return [
        speed.matmul_line(rank.ranks, rank.hardware),
        speed.host_link_line(rank.ranks, rank.hardware),
    ]


def _collectives(rank: Rank) -> list[Line]:
    """And, since NCCL connects two ranks when they first send, what it chose."""
    planned = rank.rehearsal.collectives
    lines = collectives.collective_lines(planned, rank.mesh, rank.ranks, rank.hardware)
    if device().type == "cpu":
        return [*lines, Line.skipped(transport.NAME, "gloo between CPUs: NCCL is not used")]
    log = nccl_log.read(Path(os.environ["NCCL_DEBUG_FILE"]))
    own = transport.Chosen(socket.gethostname(), rank.ranks.rank, log, nccl_log.rdma_devices())
    return [*lines, transport.transport_line(rank.ranks.gather(own), rank.hardware)]


def _rope(rank: Rank) -> list[Line]:
    result = proof.prove(rank.trainer.engine.module.model, rank.small.plan, "in the engine")
    return [Line.judged("rope", True, result, "the plan's table in every layer", "")]


def _kernel(rank: Rank) -> list[Line]:
    """In the training's own precision and kernel, within its exchange of heads."""
    train = rank.config.train
    inputs = rank.small.inputs("kernel", zero_stage=1, precision=train.precision)
    kernel = replace(inputs.config.train.attention, kernel=train.attention.kernel)
    config = replace(inputs.config, train=replace(inputs.config.train, attention=kernel))
    model = build_model(replace(inputs, config=config), rank.mesh)
    result = attention.prove_kernel(model, compute_dtype(config), device(), rank.mesh.sp_size)
    return [Line.judged("attention kernel", True, result, "a dense softmax in fp32", "")]


def _batches(rank: Rank) -> list[Line]:
    lines = batches.handed_over_lines(rank.trainer, rank.small)
    return [*lines, batches.leak_line(rank.trainer, rank.small)]


def _alone(rank: Rank) -> list[Line]:
    measured, module = rank.alone
    return [
        numbers.same_on_all_ranks(measured, rank.small),
        numbers.transformers_line(measured, module, rank.small),
    ]


def _parallel(rank: Rank) -> list[Line]:
    """The user's form of the training, its micro-batches accumulated."""
    train = rank.config.train
    what = f"sp {train.sp_size} x dp {rank.mesh.dp_size}, ZeRO {train.zero_stage}"
    return numbers.parallel_lines(step_of(rank.trainer, 0, gradients=True), rank.alone[0], what)


def _resume(rank: Rank) -> list[Line]:
    expected = resume.save_and_go_on(rank.trainer)
    return [resume.resume_line(rank.small, "parallel", expected)]


def _one_batch(rank: Rank) -> list[Line]:
    sequences = len(rank.small.data.lengths) // rank.mesh.dp_size
    return _other_form(rank, f"{sequences} sequences at once", micro_batch_size=sequences)


def _zero0(rank: Rank) -> list[Line]:
    name, train = "ZeRO 0", rank.small.config.train
    if train.zero_stage == 0:
        return [Line.skipped(name, "train.zero_stage is 0: it was compared already")]
    memory = replace(train.memory, offload_optimizer=False, offload_params=False, offload_path=None)
    memory = replace(memory, zero_hpz_size=None)
    return _other_form(rank, name, zero_stage=0, memory=memory)


def _other_form(rank: Rank, what: str, **train: object) -> list[Line]:
    trainer = rank.small.trainer(what.replace(" ", "-"), **train)
    measured = step_of(trainer, 0, gradients=True)
    trainer.engine.destroy()
    return numbers.parallel_lines(measured, rank.alone[0], what)


def _real_step(rank: Rank) -> list[Line]:
    rehearsal = rank.rehearsal
    left_out = rehearsal.real_step_left_out
    return real_step_lines(rank.config, rehearsal.plan, rehearsal.folder, rank.ranks, left_out)


CHECKS: tuple[Check, ...] = (
    Check("hosts", _hosts),
    Check("shared folder", _shared_folder),
    Check("speed", _speed),
    Check("collectives", _collectives),
    Check("rope", _rope),
    Check("attention kernel", _kernel),
    Check("batches", _batches),
    Check("one process", _alone),
    Check("parallel", _parallel),
    Check("save and resume", _resume),
    Check("one batch", _one_batch),
    Check("ZeRO 0", _zero0),
    Check("one real step", _real_step),
)
