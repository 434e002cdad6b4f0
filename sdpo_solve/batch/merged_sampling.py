"""Sampling for several runs of one process as one call of the engine.

A model takes hardly longer for many rows than for few, so runs that are about to sample wait for each other.
Where the engine can, rows of different policies share the call; elsewhere those without an adapter do, and a
run with one samples alone. Loads and changes no weights.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from sdpo_solve.batch.locks import Turns
from sdpo_solve.errors import EngineError
from sdpo_solve.protocols import Engine, MixingEngine
from sdpo_solve.types import Policy, Prompt, Sample, SamplingSpec

_LOOK_S = 0.05


@dataclass(eq=False, slots=True)
class _Request:
    prompts_G: Sequence[Prompt]
    seeds_G: Sequence[int]
    policy: Policy
    spec: SamplingSpec
    samples_G: list[Sample] | None = None
    error: BaseException | None = None

    @property
    def is_served(self) -> bool:
        return self.samples_G is not None or self.error is not None


@dataclass(eq=False, slots=True)
class MergingEngine:
    """Lets requests that wait at the same time go through the engine as one. Implements `protocols.Engine`.

    A request waits for the other runs that take part, for as long as one of them learns, and otherwise for
    half of the time that the last call took. Rows keep their own seeds; in another batch rounding may differ.
    """

    engine: Engine
    turns: Turns
    _door: threading.Condition = field(default_factory=threading.Condition)
    _waiting: list[_Request] = field(default_factory=list)
    _n_runs: int = 0
    _is_serving: bool = False
    _last_call_s: float = 1.0

    @contextmanager
    def taking_part(self) -> Iterator[None]:
        """For a run's life: the others may wait for it."""
        with self._door:
            self._n_runs += 1
        try:
            yield
        finally:
            with self._door:
                self._n_runs -= 1
                self._door.notify_all()

    def sample(
        self, prompts_G: Sequence[Prompt], seeds_G: Sequence[int], policy: Policy, spec: SamplingSpec
    ) -> list[Sample]:
        if policy.adapter_dir is not None and not isinstance(self.engine, MixingEngine):
            with self.turns.use(self.turns.engine, "sampling"):
                return self.engine.sample(prompts_G, seeds_G, policy, spec)
        own = _Request(prompts_G, seeds_G, policy, spec)
        with self.turns.meter.inside(), self._door:
            self._waiting.append(own)
            self._door.notify_all()
            leads = self._leads(own)
            self._is_serving |= leads
        if leads:
            self._lead(own)
        if own.error is not None:
            raise own.error
        assert own.samples_G is not None
        return own.samples_G

    def identity(self) -> str:
        return self.engine.identity()

    def close(self) -> None:
        self.engine.close()

    def _leads(self, own: _Request) -> bool:
        """Waits until `own` has been served (false) or, being the first in line, is to sample now (true)."""
        patience_s = self._last_call_s / 2
        while not own.is_served:
            is_first = self._waiting[:1] == [own] and not self._is_serving
            if is_first and (self._all_are_here() or patience_s <= 0):
                return True
            since_s = time.monotonic()
            self._door.wait(_LOOK_S if is_first else None)
            if is_first and not self.turns.weights.locked():
                patience_s -= time.monotonic() - since_s
        return False

    def _all_are_here(self) -> bool:
        return len(self._waiting) >= self._n_runs or not isinstance(self.engine, MixingEngine)

    def _lead(self, own: _Request) -> None:
        """Serve all that wait and sample alike."""
        try:
            with self.turns.use(self.turns.engine, "sampling"):
                with self._door:
                    requests = [request for request in self._waiting if request.spec == own.spec]
                    self._waiting = [request for request in self._waiting if request.spec != own.spec]
                since_s = time.monotonic()
                self._serve(requests)
                self._last_call_s = time.monotonic() - since_s
        finally:
            with self._door:
                self._is_serving = False
                self._door.notify_all()

    def _serve(self, requests: Sequence[_Request]) -> None:
        """Together; where that fails, each alone: an error ends the run it belongs to and no other."""
        try:
            self._sample(requests)
        except EngineError as exc:
            if len(requests) == 1:
                requests[0].error = exc
            else:
                for request in requests:
                    self._serve([request])
        except BaseException as exc:  # noqa: BLE001 -- a fault: each thread that waits for its samples raises it
            for request in requests:
                request.error = exc

    def _sample(self, requests: Sequence[_Request]) -> None:
        prompts_G = [prompt for request in requests for prompt in request.prompts_G]
        seeds_G = [seed for request in requests for seed in request.seeds_G]
        policies_G = [request.policy for request in requests for _ in request.prompts_G]
        spec = requests[0].spec
        if isinstance(self.engine, MixingEngine):
            made = self.engine.sample_mixed(prompts_G, seeds_G, policies_G, spec)
        else:
            made = self.engine.sample(prompts_G, seeds_G, requests[0].policy, spec)
        own_G = [replace(sample, policy=policy) for sample, policy in zip(made, policies_G, strict=True)]
        for request in requests:
            n = len(request.prompts_G)
            request.samples_G, own_G = own_G[:n], own_G[n:]
