"""A small training as the trainer's own parts make it, and the same batch in one process."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ropewalk.conf.artifacts.manifest import CONTENT_FILE
from ropewalk.conf.artifacts.records import write_json
from ropewalk.conf.schema import Config
from ropewalk.launch.check.small_data import SmallData, artifacts
from ropewalk.launch.check.together import Ranks
from ropewalk.train.adapters import attach
from ropewalk.train.assemble import RunInputs, assemble, build_loader, build_model
from ropewalk.train.base import Base
from ropewalk.train.loop.micro_batches import to_device
from ropewalk.train.loop.step import AcceptStep, train_step
from ropewalk.train.loop.trainer import Trainer
from ropewalk.train.loss_model import LossModel
from ropewalk.train.optim import param_groups
from ropewalk.train.rope.plan import RopePlan
from ropewalk.train.zero.full_gradients import full_gradients
from ropewalk.train.zero.mesh import Mesh


@dataclass(frozen=True)
class Measured:
    """Of one global batch."""

    loss: float
    grad_norm: float
    gradients: dict[str, torch.Tensor]
    """By parameter, float64 on the CPU."""


@dataclass(frozen=True)
class SmallTraining:
    """What every check of the numbers starts from; the same on all ranks."""

    config: Config
    """For the small model, with the user's parallel form."""
    folder: Path
    data: SmallData
    plan: RopePlan
    trusted: bool
    ranks: Ranks

    def inputs(self, name: str, **train: Any) -> RunInputs:
        """The inputs of a training called `name`; `train`: settings that differ."""
        folder = self.folder / name
        if self.ranks.rank == 0:
            folder.mkdir(exist_ok=True)
            write_json(folder / CONTENT_FILE, {"content": {"check": name}})
        self.ranks.barrier()
        return RunInputs(
            config=replace(self.config, train=replace(self.config.train, **train)),
            folder=folder,
            base=Base(str(self.folder / "model"), None, self.trusted, cache=self.folder / "cache"),
            plan=self.plan,
            data=artifacts(self.folder / "data"),
            cache=self.folder / "cache",
        )

    def trainer(self, name: str, **train: Any) -> Trainer:
        """Collective. As a rank of a training has it."""
        return assemble(self.inputs(name, **train))

    def restarts_positions(self) -> bool:
        return self.config.data.positions == "restart"


def step_of(trainer: Trainer, step: int, gradients: bool = False) -> Measured:
    """Collective. One optimizer step, with the gradient before it if asked for."""
    seen: dict[str, torch.Tensor] = {}

    def accept(_: int, __: float, ___: float) -> bool:
        if gradients:
            seen.update(full_gradients(trainer.engine))
        return True

    line = line_of_step(trainer, step, accept)
    trainer.state.step = step + 1
    return Measured(line["loss"], line["grad_norm"], seen)


def line_of_step(
    trainer: Trainer, step: int, accept: AcceptStep = lambda *_: True
) -> dict[str, Any]:
    """Collective. What the training would write to metrics.jsonl."""
    return train_step(
        trainer.engine,
        trainer.config,
        trainer.loader,
        trainer.loader.micro_batches([step]),
        step,
        trainer.mesh,
        trainer.metrics,
        accept,
    )


def in_one_process(inputs: RunInputs) -> tuple[Measured, LossModel]:
    """The first batch by the trainer's loss and kernel on this rank alone: no engine, no group.

    `inputs`: with sp_size 1 and ZeRO 0. Every rank computes it.
    """
    train, alone = inputs.config.train, Mesh()
    model = build_model(inputs, alone)
    attach.attach(model, train.lora, inputs.config.seed)
    param_groups.set_requires_grad(model, train)
    module = LossModel(model.train(), train.loss.z_loss)
    loader, loss = build_loader(inputs, alone), 0.0
    labels = loader.num_labels(0)
    for row in loader.micro_batches([0]):
        module(**to_device(row), total_labels=labels).backward()
        loss += float(module.cross_entropy)
    trained = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    norm = float(torch.nn.utils.get_total_norm(list(trained.values())))
    gradients = {name: gradient.double().cpu().clone() for name, gradient in trained.items()}
    return Measured(loss, norm, gradients), module
