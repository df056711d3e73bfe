"""The engine over the ranks that share a sequence."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from transformers import PreTrainedModel

from ropewalk.conf.errors import ConfigError
from ropewalk.data.dataset import IGNORE
from ropewalk.eval.engine import calls, whole
from ropewalk.eval.engine.decoding import Answer, End, TextOf
from ropewalk.eval.engine.finite import refuse_not_finite
from ropewalk.eval.engine.forward import Forward
from ropewalk.eval.engine.passes import Scores
from ropewalk.eval.engine_sp.rows import SharedRow, row_of_texts, rows_of_prompts
from ropewalk.eval.engine_sp.shards import NAME, Recorder, Shards, attend_shards
from ropewalk.eval.requests import Prompt, Prompts, Request, Result, Text
from ropewalk.train import attention
from ropewalk.train.attention import ulysses
from ropewalk.train.model.attention_swap import swapped_attention
from ropewalk.train.model.build import evaluating
from ropewalk.train.zero.mesh import Mesh, process_groups


class SequenceForward(Forward):
    """Forward passes of slices; a rank without calls of its own joins others' with padding."""

    def __init__(self, model: PreTrainedModel, body: nn.Module | None, mesh: Mesh) -> None:
        super().__init__(model, body)
        self.mesh = mesh

    @contextmanager
    def in_step(self) -> Iterator[None]:
        yield
        padding = row_of_texts([Text(np.zeros(self.mesh.sp_size, np.int64))], self.mesh.sp_size)
        while self._is_made(False):
            inputs = padding.inputs(self.mesh.sp_rank, self.device)
            self._compute(inputs, slice(0, 1), np.full(1, IGNORE))


class SequenceParallelEngine:
    """One model on every rank of a group, which answers requests together.

    `kernel`: the setting of the attention kernel. Other arguments as for `Engine`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        mesh: Mesh,
        batch_tokens: int,
        body: nn.Module | None = None,
        *,
        kernel: str = "auto",
        text_of: TextOf | None = None,
        label: str = "the model",
        names: Mapping[str, str] | None = None,
    ) -> None:
        self.model, self.mesh, self.batch_tokens, self.body = model, mesh, batch_tokens, body
        self.forward, self.end = SequenceForward(model, body, mesh), End.of(model, text_of)
        self.check, self.recorder = partial(refuse_not_finite, label, names or {}), Recorder()
        self.group = process_groups(mesh).get_sequence_parallel_group()
        refuse_unfit_tables(model, label, mesh.sp_size)
        self._share_sequences(kernel)

    def _share_sequences(self, kernel: str) -> None:
        """Put the exchange of heads and keys around the model's attention."""
        exchange = ulysses.kernel_wrapper(self.model.config, self.mesh)
        assert exchange is not None
        kernel = attention.kernel_for_dtype(kernel, self.model.dtype)
        needs = attention.requirements_of(self.model, self.model.dtype)
        name = attention.register(kernel, lambda k: self.recorder.around(exchange(k)), needs)
        self.model.set_attn_implementation(name)

    def batches(self, requests: Sequence[Request]) -> list[Sequence[Request]]:
        """The requests in their order, in parts that `measure` computes at once."""
        tokens = [request.tokens for request in requests]
        return [requests[part] for part in calls.batches(tokens, self.batch_tokens)]

    def measure(self, requests: Sequence[Request]) -> list[Result]:
        """Collective over the ranks of a group. The result of each request.

        Raises: NotFinite.
        """
        with evaluating(self.model), self.forward.in_step():
            texts = [request for request in requests if isinstance(request, Text)]
            losses = iter(self._texts(texts) if texts else [])
            return [
                next(losses) if isinstance(request, Text) else self._prompts(request)
                for request in requests
            ]

    def _texts(self, texts: Sequence[Text]) -> list[np.ndarray]:
        scores = self._pass(row_of_texts(texts, self.mesh.sp_size))
        for text, part in zip(texts, scores, strict=True):
            self.check(text, part.finite)
        return [part.nll[:-1] for part in scores]

    def _prompts(self, group: Prompts) -> Result:
        heads = self.model.config.get_text_config().num_attention_heads
        # where keys are gathered in parts, the parts are planned for documents that begin at 0
        share = heads % self.mesh.sp_size == 0
        answers: dict[int, Answer] = {}
        for prompts, row in rows_of_prompts(group, self.mesh.sp_size, share=share):
            for number, scores in enumerate(self._pass(row, keeps=_decodes(prompts))):
                self.check(group, scores.finite)
                answer = Answer.judged(group, prompts[number], scores, self.end)
                if not answer.is_finished:
                    self._decode(answer, self._shards(row, number, answer))
                answers[id(prompts[number])] = answer
            self.recorder.layers.clear()
        return tuple(answers[id(prompt)].reply for prompt in group.prompts)

    def _pass(self, row: SharedRow, keeps: bool = False) -> list[Scores]:
        """The scores of each document, on every rank. `keeps` keys and values."""
        rank = self.mesh.sp_rank
        rows, self.recorder.is_on = row.scored_rows_of(rank), keeps
        labels = row.labels[row.part(rank)][rows]
        own = self.forward(row.inputs(rank, self.forward.device), rows, labels)
        self.recorder.is_on = False
        every: list[Scores] = [own] * self.mesh.sp_size
        dist.all_gather_object(every, own, group=self.group)
        pairs = [(scores.nll, scores.tokens) for scores in every]
        nll, tokens = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
        return Scores(nll, tokens).split([len(rows) for rows in row.scored_rows])

    def _shards(self, row: SharedRow, number: int, answer: Answer) -> Shards:
        """This rank's keys and values of a prompt and of what is decoded of it already."""
        part, device = row.part(self.mesh.sp_rank), self.forward.device
        document, position = row.document[part], row.row.position_ids[part]
        is_seen = (document == 0) & (position < row.context) | (document == number)
        index = np.flatnonzero(is_seen & (position < answer.computed_tokens))
        room = -(-answer.prompt.max_new_tokens // self.mesh.sp_size)
        numbers, positions = (torch.from_numpy(x).to(device) for x in (index, position[index]))
        return Shards(self.recorder.layers, numbers, positions, room, self.group)

    def _decode(self, answer: Answer, shards: Shards) -> None:
        """A token a step, which every rank computes and whose key and value one of them keeps."""
        position, turn = answer.computed_tokens, 0
        with swapped_attention(self.model, NAME, attend_shards):
            while not answer.is_finished:
                shards.start_step(position, keeps=turn == self.mesh.sp_rank)
                token = self._step(answer.ids[-1], position, shards)
                self.check(answer.group, token >= 0)
                answer.append(token, self.end)
                position, turn = position + 1, (turn + 1) % self.mesh.sp_size

    def _step(self, token: int, position: int, shards: Shards) -> int:
        """The next token: the group's first rank's, so that all end at the same step."""
        device = self.forward.device
        ids, positions = (torch.tensor([[n]], device=device) for n in (token, position))
        inputs = {"input_ids": ids, "position_ids": positions, "use_cache": False, "shards": shards}
        scores = self.forward(inputs, slice(None), np.full(1, IGNORE))
        chosen = torch.from_numpy(scores.tokens).to(device)
        dist.broadcast(chosen, dist.get_global_rank(self.group, 0), group=self.group)
        return int(chosen)


def _decodes(prompts: Sequence[Prompt]) -> bool:
    return any(prompt.max_new_tokens for prompt in prompts)


def refuse_unfit_tables(model: PreTrainedModel, label: str, sp_size: int) -> None:
    """Raises: ConfigError where a slice of a sequence would not be rotated as the whole is."""
    if reason := whole.why_whole(model):
        raise ConfigError(
            f"eval.sp_size is {sp_size}; each rank computes a slice of a sequence, which {label} "
            f"does not allow: {reason}; set eval.sp_size=1"
        )
