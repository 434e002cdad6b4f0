"""`openai`: any server with OpenAI's chat completions, for the methods that do not learn.

The server has model, tokenizer and chat template; nothing of them is loaded here, and torch is not either.
It tells neither token ids nor, in one form, log-probs: a sample has as many tokens of the id UNKNOWN as the
server counted (`usage.completion_tokens`), and its log-probs are zeros.
Routes: https://platform.openai.com/docs/api-reference/chat.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, Field

from sdpo_solve.config import Free
from sdpo_solve.config import Options as BaseOptions
from sdpo_solve.engines import EngineParts, EnginePlugin
from sdpo_solve.engines._answers import require_text
from sdpo_solve.engines._http import Body, Client, StatusError, read_as
from sdpo_solve.errors import ConfigError, EngineError, PrerequisiteError
from sdpo_solve.protocols import TokenProgress
from sdpo_solve.types import Finish, Policy, Prompt, Sample, SamplingSpec

UNKNOWN = -1
"""The id of a token whose id the server does not tell."""
_CUT = ("length", "model_length")  # the second of Mistral: where the context ends
_SEEDS = 1 << 31  # servers take seeds of 32 bits, some of them signed


class Options(BaseOptions):
    """The server, and how it is used."""

    server: Free[str | None] = Field(None, description="address below which /chat/completions lies")
    key_variable: Free[str] = Field("OPENAI_API_KEY", description="environment variable that holds the key")
    timeout_s: Free[float] = Field(600, gt=0, description="seconds that the server may take for one answer")
    batch_rows: Free[int] = Field(16, ge=1, description="answers sampled at the same time at most")


class _Message(BaseModel):
    content: str | None = None


class _End(BaseModel):
    finish_reason: str | None = None
    error: Any = None


class _Ends(BaseModel):
    choices: list[_End] = Field(min_length=1)


class _Choice(_End):
    message: _Message


class _Usage(BaseModel):
    completion_tokens: int = Field(ge=0)


class _Completion(BaseModel):
    choices: list[_Choice]
    usage: _Usage


class OpenAIEngine(EnginePlugin):
    """A model behind chat completions. `client` has the address."""

    options_type = Options
    needs_model = False
    remote = True

    @classmethod
    def build(cls, options: Options, parts: EngineParts) -> OpenAIEngine:
        """Raises ConfigError without an address or a name, PrerequisiteError where no such server answers."""
        if options.server is None:
            raise ConfigError("--engine openai needs --server URL: the address of the server")
        if parts.model_name is None:
            raise ConfigError("--engine openai needs --model NAME: what the server calls its model")
        client = Client(options.server, options.key_variable, options.timeout_s, options.batch_rows)
        engine = cls(client, parts.model_name, parts.progress)
        try:
            engine.probe()
        except EngineError as exc:
            raise PrerequisiteError(str(exc)) from None
        return engine

    def __init__(self, client: Client, model: str, progress: TokenProgress | None = None) -> None:
        self._client, self._model, self._progress = client, model, progress
        self._limit = "max_tokens"
        self._has_answered = False

    def sample(
        self, prompts_G: Sequence[Prompt], seeds_G: Sequence[int], policy: Policy, spec: SamplingSpec
    ) -> list[Sample]:
        """One sample a prompt, in order.

        Raises EngineError for a policy with an adapter, and where the server fails; PrerequisiteError where
        it refuses the key or has no such model.
        """
        if policy.adapter_dir is not None:
            raise EngineError(f"the server has no adapter of policy {policy.key}")
        for prompt in prompts_G:
            require_text(prompt)
        samples: dict[int, Sample] = {}
        n_tokens = 0

        def keep(place: int, body: Body) -> None:
            nonlocal n_tokens
            samples[place] = self._sample(prompts_G[place], body, policy)
            self._has_answered = True
            n_tokens += len(samples[place].token_ids_T)
            if self._progress is not None:
                self._progress(n_tokens, len(samples))

        try:
            self._client.post_all("/chat/completions", self._bodies(prompts_G, seeds_G, spec), keep)
        except StatusError as exc:
            if exc.status == 404:
                raise self._not_found(exc) from None
            if not (
                exc.status == 400 and "max_completion_tokens" in exc.detail and self._limit == "max_tokens"
            ):
                raise
            self._limit = "max_completion_tokens"  # OpenAI's newer models refuse the older name
            return self.sample(prompts_G, seeds_G, policy, spec)
        return [samples[place] for place in range(len(prompts_G))]

    def probe(self) -> None:
        """Raises EngineError where the server is gone, PrerequisiteError where it wants another key."""
        try:
            self._client.get("/models")
        except StatusError as exc:
            if exc.status >= 500:  # a server need not have this route
                raise

    def identity(self) -> str:
        return f"openai:{self._model} at {urlsplit(self._client.url).netloc}"

    def close(self) -> None:
        """Nothing to free."""

    def _bodies(self, prompts_G: Sequence[Prompt], seeds_G: Sequence[int], spec: SamplingSpec) -> list[Body]:
        return [
            {
                "model": self._model,
                "messages": [{"role": m.role, "content": m.content} for m in prompt.messages],
                "temperature": spec.temperature,
                "seed": seed % _SEEDS,
                self._limit: spec.max_tokens,
            }
            for prompt, seed in zip(prompts_G, seeds_G, strict=True)
        ]

    def _sample(self, prompt: Prompt, body: Body, policy: Policy) -> Sample:
        url = self._client.url
        end = read_as(_Ends, body, url).choices[0]
        if end.error or end.finish_reason == "error":  # what else an answer has may be missing
            reason = self._client.words(end.error or "it gives no reason")
            raise EngineError(f"{url} broke an answer off: {reason}")
        answer = read_as(_Completion, body, url)
        choice, n = answer.choices[0], answer.usage.completion_tokens
        return Sample(
            prompt=prompt,
            prompt_ids=(),
            token_ids_T=(UNKNOWN,) * n,
            logprobs_T=(0.0,) * n,
            text=choice.message.content or "",
            finish=Finish.LENGTH if choice.finish_reason in _CUT else Finish.STOP,
            policy=policy,
        )

    def _not_found(self, exc: StatusError) -> EngineError | PrerequisiteError:
        """A 404: of the model where the server lists others alone, else of the address or of one prompt."""
        names = self._listed()
        if names and self._model not in names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            listed = f"{', '.join(names[:5])}{more}"
            return PrerequisiteError(f"{exc}; name a model of the server with --model (it lists {listed})")
        if self._has_answered:
            return exc
        advice = "--server wants the address below which /chat/completions lies"
        return EngineError(f"{exc}; {advice}") if names else PrerequisiteError(f"{exc}; {advice}")

    def _listed(self) -> list[str]:
        """The models that the server lists; nothing where it lists none."""
        try:
            listed: Any = self._client.get("/models").get("data")
            return [str(model["id"]) for model in listed]
        except (EngineError, PrerequisiteError, TypeError, KeyError):
            return []


PLUGIN = OpenAIEngine
