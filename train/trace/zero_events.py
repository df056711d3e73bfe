"""What DeepSpeed's engine allocates around a step, put into its events: states, gathered weights,
buckets of gradients.

The engine itself cannot be traced. Its rules are followed instead, with the sizes that
zero/buffer_sizes.py sets: partitioned_param_coordinator.py (fetch, prefetch, release), stage3.py
and stage_1_and_2.py (buckets, fp32 copies, partitions) of DeepSpeed 0.19.8.

    W ranks   P trained elements
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from ropewalk.train.trace.events import COMPUTE, GATHER, REDUCE, Event, Parameter, rounded

FP32 = 4


@dataclass(frozen=True)
class Engine:
    """The engine's settings. Sizes are in elements."""

    stage: int
    world_size: int
    element_bytes: int
    sizes: dict[Parameter, int]
    """Of all parameters; frozen ones too."""
    share: int
    """Trained elements of a rank's part."""
    states: dict[str, int]
    """Bytes of `parameters` and `optimizer` on the device."""
    settings: dict[str, Any]
    """DeepSpeed's section `zero_optimization`, as zero/buffer_sizes.py makes it."""
    offloads_optimizer: bool = False
    micro_batches: int = 1
    persistent: frozenset[Parameter] = field(default_factory=frozenset)
    """Weights that ZeRO 3 keeps whole."""


def with_engine(events: Sequence[Event], engine: Engine) -> list[Event]:
    """`events` of a step's own tensors with those of the engine of stage 1, 2 or 3."""
    if engine.stage == 3:
        events = list(_Gathers(engine, events).run())
    return list(_Buckets(engine).run(events))


class _Gathers:
    """ZeRO 3's weights: gathered before use, the next ones ahead, released when not needed soon."""

    def __init__(self, engine: Engine, events: Sequence[Event]) -> None:
        self.engine, self.events = engine, events
        self.prefetch = engine.settings["stage3_prefetch_bucket_size"]
        self.max_live = engine.settings["stage3_max_live_parameters"]
        self.reuse = engine.settings["stage3_max_reuse_distance"]
        self.uses: list[Parameter] = []
        self.ends: list[int] = []
        """The number of uses up to the end of each micro-batch: DeepSpeed prefetches no further."""
        for event in events:
            if event[0] == "use" and event[1] not in engine.persistent:
                self.uses.append(event[1])
            elif event[:2] == ("mark", "batch"):
                self.ends.append(len(self.uses))
        self.ends = [*self.ends[1:], len(self.uses)]
        self.whole: dict[Parameter, Any] = {}
        """Gathered weights, each with its allocation."""
        self.in_flight: dict[Parameter, list[Parameter]] = {}
        """Weights of a prefetch that nobody waited for, with all of that prefetch."""
        self.flat: dict[Parameter, Any] = {}
        self.live = 0
        self.queued = 0
        """How many uses the prefetches have looked at."""
        self.wanted: dict[Parameter, int] = {}
        """The last use that a prefetch saw of a weight that was there already."""
        self.number = 0

    def run(self) -> Iterator[Event]:
        at = -1
        for event in self.events:
            if event[0] == "use" and event[1] not in self.engine.persistent:
                if at >= 0:
                    yield from self._release(at)
                at += 1
                yield from self._fetch(at)
            elif event[:2] == ("mark", "optimizer"):
                yield from self._release_all()
            yield event
            if event[:2] == ("mark", "batch"):  # the model's own hook, before its first weight
                self.queued = at + 1
                yield from self._prefetch(at + 1)

    def _alloc(self, elements: int) -> Event:
        self.number += 1
        padded = -(-elements // self.engine.world_size) * self.engine.world_size
        size = rounded(padded * self.engine.element_bytes)
        return ("alloc", ("gathered", self.number), size, "gathered weights", GATHER)

    def _fetch(self, at: int) -> Iterator[Event]:
        parameter = self.uses[at]
        if parameter in self.in_flight:
            yield from self._wait(parameter)
        elif parameter not in self.whole:
            event = self._alloc(self.engine.sizes[parameter])
            self.whole[parameter] = event[1]
            self.live += self.engine.sizes[parameter]
            yield from (("gather", "on demand"), event)
        self.queued = max(self.queued, at + 1)
        yield from self._prefetch(at)

    def _wait(self, parameter: Parameter) -> Iterator[Event]:
        """The gathered buffer is cut into the weights, each a copy, and then freed."""
        together = self.in_flight[parameter]
        if len(together) > 1:
            for one in together:
                event = self._alloc(self.engine.sizes[one])
                self.whole[one] = event[1]
                yield event
            yield ("free", self.flat.pop(together[0]))
        for one in together:
            del self.in_flight[one]

    def _prefetch(self, at: int) -> Iterator[Event]:
        end = next((number for number in self.ends if number > at), len(self.uses))
        budget = min(self.max_live - self.live, self.prefetch)
        chosen: list[Parameter] = []
        elements = 0
        while self.queued < end and elements < budget:
            parameter = self.uses[self.queued]
            self.queued += 1
            if parameter in self.whole or parameter in self.in_flight or parameter in chosen:
                self.wanted[parameter] = self.queued - 1
                continue
            chosen.append(parameter)
            elements += self.engine.sizes[parameter]
        if not chosen:
            return
        self.live += elements
        event = self._alloc(elements)
        if len(chosen) == 1:
            self.whole[chosen[0]] = event[1]
        else:
            self.flat[chosen[0]] = event[1]
            self.in_flight |= dict.fromkeys(chosen, chosen)
        yield from (("gather", "ahead"), event)

    def _release(self, at: int) -> Iterator[Event]:
        """After use `at`, unless the weight is needed again within the reuse distance."""
        parameter = self.uses[at]
        if parameter not in self.whole or self.wanted.get(parameter, -1) > at:
            return
        passed = 0
        for later in islice(self.uses, at + 1, None):
            if passed >= self.reuse:
                break
            if later == parameter:
                return
            passed += self.engine.sizes[later]
        self.live -= self.engine.sizes[parameter]
        yield ("free", self.whole.pop(parameter))

    def _release_all(self) -> Iterator[Event]:
        for identity in [*self.whole.values(), *self.flat.values()]:
            yield ("free", identity)
        self.whole.clear()
        self.flat.clear()
        self.in_flight.clear()
        self.wanted.clear()
        self.live = 0


class _Buckets:
    """States at the start; gradients from where they are complete until the step."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.bucket: int = engine.settings["reduce_bucket_size"]
        self.elements = 0
        self.count = 0
        self.large: list[Any] = []
        """Gradients that fit no bucket, held until it is reduced."""
        self.buffers: list[Any] = []
        self.of_step: list[Any] = []
        """What lives until the end of the step."""
        self.batch = 0
        self.in_backward = False
        self.number = 0

    def run(self, events: Sequence[Event]) -> Iterator[Event]:
        yield from self._start()
        for event in events:
            if event[0] == "gradient":
                yield from self._gradient(event[1])
                continue
            if event[0] == "mark":
                yield from self._mark(event[1])
            yield event

    def _alloc(self, num_bytes: int, component: str, stream: int = COMPUTE) -> Event:
        self.number += 1
        return ("alloc", ("engine", self.number), rounded(num_bytes), component, stream)

    def _start(self) -> Iterator[Event]:
        engine = self.engine
        for component, size in engine.states.items():
            parts = 3 if component == "optimizer" else 1  # masters and two moments
            for _ in range(parts if size else 0):
                yield self._alloc(size // parts, component)
        if engine.stage == 3:
            yield self._alloc(self.bucket * FP32, "gradient buckets")
            if not engine.offloads_optimizer:
                yield self._alloc(engine.share * FP32, "gradients")
        elif engine.offloads_optimizer:
            largest = max(engine.sizes.values())
            yield self._alloc(largest * engine.element_bytes, "gradient buckets")

    def _mark(self, name: str) -> Iterator[Event]:
        if name == "backward" and not self.in_backward:
            self.in_backward = True
            yield from self._begin_backward()
        elif name in ("batch", "optimizer") and self.in_backward:
            self.in_backward = False
            yield from self._flush()
            for identity in self.buffers:
                yield ("free", identity)
            self.buffers.clear()
            self.batch += 1
        if name == "optimizer":
            yield from self._step()
        elif name == "end":
            for identity in self.of_step:
                yield ("free", identity)
            self.of_step.clear()
            self.batch = 0

    def _begin_backward(self) -> Iterator[Event]:
        engine = self.engine
        if engine.stage == 3:
            return
        width = FP32 if engine.stage == 1 else engine.element_bytes
        for _ in range(2 if engine.settings["overlap_comm"] else 1):
            event = self._alloc(self.bucket * width, "gradient buckets")
            self.buffers.append(event[1])
            yield event
        if engine.stage == 2 and self.batch == 0:
            yield from self._until_end(engine.share)

    def _until_end(self, elements: int) -> Iterator[Event]:
        event = self._alloc(elements * FP32, "gradients")
        self.of_step.append(event[1])
        yield event

    def _gradient(self, parameter: Parameter) -> Iterator[Event]:
        size = self.engine.sizes[parameter]
        if self.engine.stage == 1 and self.engine.element_bytes != FP32 and self.batch == 0:
            yield from self._until_end(size)
        if self.engine.stage == 1 and self.batch + 1 < self.engine.micro_batches:
            return
        if self.elements + size > self.bucket and self.elements:
            yield from self._flush()
        if size > self.bucket and self.engine.stage > 1:
            event = self._alloc(size * self.engine.element_bytes, "gradient buckets")
            self.large.append((event[1], size))
            yield event
        self.elements += size
        self.count += 1

    def _flush(self) -> Iterator[Event]:
        """Reduce what the bucket holds: copies in fp32, freed when they are added to the sums."""
        if not self.elements:
            return
        stage, casts = self.engine.stage, self.engine.element_bytes != FP32
        sizes = [size for _, size in self.large] if casts and stage > 1 else []
        in_bucket = self.elements - sum(size for _, size in self.large)
        if stage == 2 and casts and in_bucket:
            sizes.append(in_bucket)
        divides = self.count == 1 and self.elements % self.engine.world_size == 0
        if stage == 3 and not divides:
            sizes.append(self.elements)  # rows of every rank, for the reduce-scatter
        copies = [self._alloc(size * FP32, "gradient buckets", REDUCE) for size in sizes]
        yield from copies
        for identity in [event[1] for event in copies] + [large for large, _ in self.large]:
            yield ("free", identity)
        self.large.clear()
        self.elements = self.count = 0

    def _step(self) -> Iterator[Event]:
        """This rank's part of the gradients, as the optimizer takes it."""
        if self.engine.offloads_optimizer:
            return
        if self.engine.stage != 2:
            yield from self._until_end(self.engine.share)
