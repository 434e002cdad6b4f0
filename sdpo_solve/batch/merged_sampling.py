"""Sampling for several runs of one process as one call of the engine.

A model takes hardly longer for many rows than for few, so runs that are about to sample wait for each other.
Where the engine can, rows of different policies share the call; elsewhere those without an adapter do, and a
run with one samples alone. Loads and changes no weights.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from sdpo_solve.batch.locks import DeviceLocks
from sdpo_solve.batch.stop import Stopped
from sdpo_solve.errors import PrerequisiteError, UserError
from sdpo_solve.protocols import MixingEngine, Sampler
from sdpo_solve.run.clock import Clock
from sdpo_solve.solve import sample_each
from sdpo_solve.types import Policy, Prompt, Sample, SamplingSpec

_POLL_S = 0.05


@dataclass(frozen=True, eq=False, slots=True)
class _Request:
    prompts_G: Sequence[Prompt]
    seeds_G: Sequence[int]
    policies_G: Sequence[Policy]
    spec: SamplingSpec
    clock: Clock
    samples_G: Future[list[Sample]] = field(default_factory=Future)


class MergingEngine(MixingEngine):
    """Passes requests that wait at the same time to the engine as one, over those that cannot mix as well.

    A request waits for the other runs that take part, for as long as one of them learns, and otherwise for
    half of the time that the last call took. Rows keep their own seeds; in another batch rounding may differ.
    """

    def __init__(self, engine: Sampler, locks: DeviceLocks, clock: Clock | None = None) -> None:
        """`clock` stands still while the engine is gone."""
        self._engine, self._locks, self._clock = engine, locks, clock or Clock()
        self._changed = threading.Condition()
        self._waiting: list[_Request] = []
        self._n_runs = 0
        self._is_sampling = False
        self._last_call_s = 1.0

    @contextmanager
    def taking_part(self) -> Iterator[None]:
        """For a run's life: the others may wait for it."""
        with self._changed:
            self._n_runs += 1
        try:
            yield
        finally:
            with self._changed:
                self._n_runs -= 1
                self._changed.notify_all()

    def sample_mixed(
        self,
        prompts_G: Sequence[Prompt],
        seeds_G: Sequence[int],
        policies_G: Sequence[Policy],
        spec: SamplingSpec,
        clock: Clock | None = None,
    ) -> list[Sample]:
        """The samples of one run, whose `clock` counts the call that serves it, and no waiting for it."""
        own = _Request(prompts_G, seeds_G, policies_G, spec, clock or Clock())
        with own.clock.paused():
            return self._sample(own)

    def _sample(self, own: _Request) -> list[Sample]:
        uses_adapters = any(policy.adapter_dir is not None for policy in own.policies_G)
        if uses_adapters and not isinstance(self._engine, MixingEngine):
            with self._locks.sampling(), self._counted([own]):
                return sample_each(self._engine, own.prompts_G, own.seeds_G, own.policies_G, own.spec)
        with self._locks.meter.time("waiting"), self._changed:
            self._waiting.append(own)
            self._changed.notify_all()
            samples_now = self._wait(own)
            self._is_sampling |= samples_now
        if samples_now:
            self._sample_for_all(own.spec)
        return own.samples_G.result()

    @contextmanager
    def _counted(self, requests: Sequence[_Request]) -> Iterator[None]:
        """Count a call of the engine for every run that it serves."""
        since_s = self._clock.elapsed_s
        try:
            yield
        finally:
            for request in requests:
                request.clock.add(self._clock.elapsed_s - since_s)

    def _wait(self, own: _Request) -> bool:
        """False once `own` has been served; true where, being the first in line, it is to sample for all."""
        patience_s = self._last_call_s / 2
        while not own.samples_G.done():
            is_first = self._waiting[:1] == [own] and not self._is_sampling
            if is_first and (self._all_wait() or patience_s <= 0):
                return True
            since_s = time.monotonic()
            self._changed.wait(_POLL_S if is_first else None)
            if is_first and not self._locks.weights.locked():
                patience_s -= time.monotonic() - since_s
        return False

    def _all_wait(self) -> bool:
        return len(self._waiting) >= self._n_runs or not isinstance(self._engine, MixingEngine)

    def _sample_for_all(self, spec: SamplingSpec) -> None:
        """Serve every waiting request that samples so."""
        try:
            with self._locks.sampling():
                with self._changed:
                    requests = [request for request in self._waiting if request.spec == spec]
                    self._waiting = [request for request in self._waiting if request.spec != spec]
                since_s = time.monotonic()
                self._serve(requests)
                self._last_call_s = time.monotonic() - since_s
        finally:
            with self._changed:
                self._is_sampling = False
                self._changed.notify_all()

    def _serve(self, requests: Sequence[_Request]) -> None:
        """Together; where that fails, each alone: an error ends the run it belongs to and no other.

        One that concerns every run (an engine that stays away, the batch's end) is every request's at once.
        """
        try:
            self._call(requests)
        except BaseException as exc:  # noqa: BLE001 -- raised by the threads that wait for their samples
            is_of_all = isinstance(exc, (UserError, PrerequisiteError, Stopped))
            for request in requests:
                if is_of_all or len(requests) == 1:
                    request.samples_G.set_exception(exc)
                else:
                    self._serve([request])

    def _call(self, requests: Sequence[_Request]) -> None:
        prompts_G = [prompt for request in requests for prompt in request.prompts_G]
        seeds_G = [seed for request in requests for seed in request.seeds_G]
        policies_G = [policy for request in requests for policy in request.policies_G]
        spec = requests[0].spec
        with self._counted(requests):
            if isinstance(self._engine, MixingEngine):
                samples_G = self._engine.sample_mixed(prompts_G, seeds_G, policies_G, spec)
            else:
                samples_G = self._engine.sample(prompts_G, seeds_G, policies_G[0], spec)
        own_G = [replace(sample, policy=policy) for sample, policy in zip(samples_G, policies_G, strict=True)]
        for request in requests:
            n = len(request.prompts_G)
            request.samples_G.set_result(own_G[:n])
            own_G = own_G[n:]


@dataclass(frozen=True, slots=True)
class MergedEngine(MixingEngine):
    """The merging engine with the clock of one run."""

    merging: MergingEngine
    clock: Clock

    def sample_mixed(
        self,
        prompts_G: Sequence[Prompt],
        seeds_G: Sequence[int],
        policies_G: Sequence[Policy],
        spec: SamplingSpec,
    ) -> list[Sample]:
        return self.merging.sample_mixed(prompts_G, seeds_G, policies_G, spec, self.clock)
