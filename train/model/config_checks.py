"""What a base's config asks of the loss and of training: lines of problems, and lines to tell."""

from transformers import PreTrainedConfig

from ropewalk.conf.train import LossConfig
from ropewalk.train import router_loss
from ropewalk.train.model import dropout, left_out
from ropewalk.train.model.build import head_problems


def problems(config: PreTrainedConfig, name: str, loss: LossConfig) -> list[str]:
    """A line for each thing that the trainer cannot do. `name`: the base's."""
    return [
        *dropout.config_problems(config, name),
        *head_problems(config),
        *router_loss.config_problems(config, loss.router_aux_loss_coef),
    ]


def notes(config: PreTrainedConfig) -> list[str]:
    """A line for each thing that is trained otherwise than the config says, or not at all."""
    return [*dropout.notes(config), *left_out.notes(config)]
