"""`Server`: a vLLM that runs already, by its OpenAI routes; adapters are loaded and unloaded at run time.

Prompts go in as token ids; ids and log-probs come back as they were sampled. Sampler and learner may be in
different environments or on different machines, as long as both see the directory of the runs.
Routes: https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html and .../features/lora.html.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any

from pydantic import BaseModel, Field

from sdpo_solve.engines._http import Body, Client, StatusError, read_as
from sdpo_solve.engines._vllm_backend import Adapter, Answer, Options, Request
from sdpo_solve.errors import ConfigError, EngineError, PrerequisiteError
from sdpo_solve.model.device import best_device, fast_dtype
from sdpo_solve.protocols import TokenProgress
from sdpo_solve.sanitize import clean
from sdpo_solve.types import Finish

# What the server would cut the distribution by where its model's generation config says so.
_WHOLE = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
_IDS = {"return_token_ids": True}
_LOAD, _UNLOAD, _SAMPLE, _MODELS = "/load_lora_adapter", "/unload_lora_adapter", "/completions", "/models"
_TOLERANCE = 1e-3  # nats between a log-prob at one temperature and at another


class _Model(BaseModel):
    id: str
    root: str | None = None
    parent: str | None = None
    max_model_len: int | None = None


class _Models(BaseModel):
    data: list[_Model]


class _Logprobs(BaseModel):
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]


class _Entry(BaseModel):
    logprob: float


class _Choice(BaseModel):
    token_ids: list[int]
    logprobs: _Logprobs
    finish_reason: str | None
    prompt_logprobs: list[dict[int, _Entry] | None] | None = None


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)


class Server:
    """A vLLM at an address. Implements `Backend`."""

    def __init__(
        self, model_dir: Path, name: str | None, options: Options, rank: int, n_adapters: int
    ) -> None:
        """`model_dir`, `name`: the learner's model; `rank`: of the adapters, as vLLM rounds it up.

        Raises PrerequisiteError where no such server answers, ConfigError for options that mean nothing.
        """
        assert options.server is not None
        require_honoured(options)
        self._client = Client(options.server, options.key_variable, options.timeout_s, options.batch_rows)
        self._url = self._client.url
        self._model_dir = model_dir
        self._names = {PurePath(name or model_dir).name, model_dir.name}
        self._rank = rank
        self.n_adapters = n_adapters
        self._loaded: set[str] = set()
        self._temperatures: dict[float, bool] = {1.0: True}
        try:
            self._base = self._base_of(self._models())
        except EngineError as exc:
            raise PrerequisiteError(f"{exc}. Start one: {self._command()}") from None
        self.context_tokens = self._base.max_model_len or 0

    def generate(
        self, requests_G: Sequence[Request], shared: dict[str, Any], progress: TokenProgress | None
    ) -> list[Answer]:
        """As `Backend.generate`. An interrupt closes the connections, and the server gives up on the rest."""
        self._require_processed(shared["temperature"])
        bodies = [
            {
                **_WHOLE,
                **shared,
                "model": self._name(one.adapter),
                "prompt": list(one.prompt_ids),
                "max_tokens": one.max_tokens,
                "seed": one.seed,
                **_IDS,
            }
            for one in requests_G
        ]
        answers: dict[int, Answer] = {}
        n_tokens = 0

        def keep(place: int, body: Body) -> None:
            nonlocal n_tokens
            answers[place] = self._answer(body)
            n_tokens += len(answers[place].token_ids_T)
            if progress is not None:
                progress(n_tokens, len(answers))

        self._client.post_all(_SAMPLE, bodies, keep)
        return [answers[place] for place in range(len(bodies))]

    def score(self, ids: Sequence[int], adapter: Adapter | None) -> list[float]:
        """As `Backend.score`."""
        body = {**_WHOLE, "model": self._name(adapter), "prompt": list(ids), "max_tokens": 1,
                "logprobs": 0, "prompt_logprobs": 0, "temperature": 1.0, **_IDS}  # fmt: skip
        entries_T = self._choice(self._client.post(_SAMPLE, body)).prompt_logprobs
        if entries_T is None or len(entries_T) != len(ids):
            raise EngineError(f"{self._url} gives no log-probs of prompts; it is no vLLM")
        pairs = zip(ids, entries_T, strict=True)
        return [entry[token_id].logprob for token_id, entry in pairs if entry is not None]

    def load(self, adapter: Adapter) -> None:
        """As `Backend.load`; the error of one that the server cannot read or take names the remedy."""
        path = str(adapter.directory.resolve())
        try:
            self._client.order(_LOAD, {"lora_name": adapter.name, "lora_path": path})
        except StatusError as exc:
            raise EngineError(self._refusal(exc, path)) from None
        self._loaded.add(adapter.name)

    def unload(self, adapter: Adapter) -> None:
        """As `Backend.unload`."""
        self._loaded.discard(adapter.name)
        self._unload(adapter.name)

    def held(self) -> set[str]:
        """As `Backend.held`. Raises EngineError where another base model is served now."""
        models = self._models()
        base = self._base_of(models)
        if (base.id, base.root) != (self._base.id, self._base.root):
            raise EngineError(f"{self._url} serves {base.root or base.id} now, not {self._base.root}")
        return {model.id for model in models if model.parent is not None}

    def wake(self) -> bool:
        """Never asleep."""
        return False

    def rest(self) -> None:
        """Nothing: its memory is its own."""

    def identity(self) -> str:
        return f"{self._base.root or self._base.id} at {self._url}"

    def close(self) -> None:
        """Leave the server without our adapters. Safe to call twice."""
        with suppress(EngineError, PrerequisiteError):  # the server may be gone
            for name in sorted(self._loaded):
                self._unload(name)
        self._loaded.clear()

    # -- what the server holds -----------------------------------------------------------------------------

    def _models(self) -> list[_Model]:
        return read_as(_Models, self._client.get(_MODELS), self._url).data

    def _base_of(self, models: Sequence[_Model]) -> _Model:
        """The base model among those served. Raises EngineError where none has the learner's name."""
        bases = [model for model in models if model.parent is None]
        for model in bases:
            if self._names & {PurePath(name).name for name in (model.id, model.root or "")}:
                return model
        served = ", ".join(model.root or model.id for model in bases) or "no model"
        raise EngineError(
            f"{self._url} serves {clean(served)}, and the learner has {max(self._names)}; name the same "
            "model, or give the server this name with --served-model-name"
        )

    def _unload(self, name: str) -> None:
        try:
            self._client.order(_UNLOAD, {"lora_name": name})
        except StatusError as exc:
            if exc.status != 404:
                raise

    def _name(self, adapter: Adapter | None) -> str:
        return self._base.id if adapter is None else adapter.name

    def _require_processed(self, temperature: float) -> None:
        """Log-probs must be those of the distribution sampled, temperature included.

        Raises EngineError where they do not change with the temperature.
        """
        if temperature not in self._temperatures:
            plain, shaped = (self._likeliest(t) for t in (1.0, temperature))
            self._temperatures[temperature] = abs(plain - shaped) > _TOLERANCE
        if not self._temperatures[temperature]:
            raise EngineError(
                f"{self._url} gives log-probs without the temperature; start it with "
                "--logprobs-mode processed_logprobs, or leave --temperature at 1"
            )

    def _likeliest(self, temperature: float) -> float:
        """The log-prob of the likeliest token after some token."""
        body = {**_WHOLE, "model": self._base.id, "prompt": [1], "max_tokens": 1, "temperature": temperature,
                "logprobs": 1, **_IDS}  # fmt: skip
        return max(self._choice(self._client.post(_SAMPLE, body)).logprobs.top_logprobs[0].values())

    # -- answers -------------------------------------------------------------------------------------------

    def _answer(self, body: Body) -> Answer:
        choice = self._choice(body)
        logprobs_T = tuple(choice.logprobs.token_logprobs)
        if len(logprobs_T) != len(choice.token_ids):
            counts = f"{len(logprobs_T)} log-probs of {len(choice.token_ids)} tokens"
            raise EngineError(f"{self._url} gave {counts}")
        finish = Finish.STOP if choice.finish_reason == "stop" else Finish.LENGTH
        return Answer(tuple(choice.token_ids), logprobs_T, finish)

    def _choice(self, body: Body) -> _Choice:
        return read_as(_Completion, body, self._url).choices[0]

    def _refusal(self, exc: StatusError, path: str) -> str:
        """Why the server did not take an adapter, and what to do."""
        if exc.status == 404 and "adapter" not in exc.detail.lower():
            return f"{self._url} loads no adapters at run time; start it so: {self._command()}"
        if exc.status == 404 or "No such file" in exc.detail or "Permission denied" in exc.detail:
            return (
                f"{self._url} cannot read {path}: server and learner must see the runs under one path; "
                f"choose an --out on a shared file system ({exc.detail})"
            )
        return f"{self._url} refuses {path} ({exc.detail}); start it so: {self._command()}"

    def _command(self) -> str:
        dtype = str(fast_dtype(best_device(), self._model_dir)).removeprefix("torch.")  # the learner's
        return (
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 python -m vllm.entrypoints.openai.api_server --model MODEL "
            f"--dtype {dtype} --enable-lora "
            f"--max-loras {self.n_adapters} --max-lora-rank {self._rank} --logprobs-mode processed_logprobs"
        )


def require_honoured(options: Options) -> None:
    """Raises ConfigError for an option that starts a vLLM: this one runs already."""
    used = {"server", "key_variable", "timeout_s", "batch_rows", "probe_tolerance", "stop"}
    for name in sorted(options.model_fields_set - used):
        raise ConfigError(
            f"--set engine.{name} is for a vLLM that is started here; --server names a running one"
        )
