"""`scripted`: answers from a file instead of a model, one JSON object `{"text": "..."}` a line, in order.

For demonstrations and tests: everything after the sampling is the real thing. Without a model a token is one
UTF-8 byte and every log-prob is 0; with one (`--model`), ids are its tokenizer's and log-probs those of a
teacher-forced pass, so that a learner can work with them. A reply is used whole: it was written, not sampled,
so `max_tokens` does not cut it and seeds change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel, ValidationError

from sdpo_solve.config import Options as BaseOptions
from sdpo_solve.engines import EngineParts, EnginePlugin
from sdpo_solve.engines._answers import require_text
from sdpo_solve.engines._scoring import forced_logprobs
from sdpo_solve.errors import ConfigError, EngineError, UserError
from sdpo_solve.model.chat import encode_chat
from sdpo_solve.protocols import PolicyHost, TokenProgress
from sdpo_solve.types import Finish, Policy, Prompt, Sample, SamplingSpec


class Options(BaseOptions):
    """No options: the replies file holds all."""


class ScriptedEngine(EnginePlugin):
    """A queue of replies. Attempt k of a run gets line k, so a resumed run goes on where it stopped.

    `consumed`: replies used by earlier attempts of the run.
    """

    options_type = Options
    needs_model = False
    reads_replies = True
    shares_weights = True

    @classmethod
    def build(cls, options: Options, parts: EngineParts) -> ScriptedEngine:
        """Raises ConfigError without a replies file, UserError for a line that is no reply."""
        del options  # it has no fields
        if parts.replies is None:
            raise ConfigError("--engine scripted needs --replies FILE")
        return cls(parts.replies, consumed=parts.consumed, host=parts.host, progress=parts.progress)

    def __init__(
        self,
        path: Path,
        *,
        consumed: int = 0,
        host: Callable[[], PolicyHost] | None = None,
        progress: TokenProgress | None = None,
    ) -> None:
        self._path = path
        self._replies = read_replies(path)
        self._next = consumed
        self._host = host
        self._progress = progress

    def sample(
        self, prompts_G: Sequence[Prompt], seeds_G: Sequence[int], policy: Policy, spec: SamplingSpec
    ) -> list[Sample]:
        """The next replies, one a prompt.

        Raises EngineError, and uses none, where fewer are left or a prompt is empty.
        """
        for prompt in prompts_G:
            require_text(prompt)
        stop = self._next + len(prompts_G)
        if stop > len(self._replies):
            raise EngineError(
                f"{self._path} holds {len(self._replies)} replies; attempts {self._next + 1} to {stop} need "
                f"{stop - len(self._replies)} more. Add lines: the same command goes on"
            )
        samples: list[Sample] = []
        n_tokens = 0
        for prompt, text in zip(prompts_G, self._replies[self._next : stop], strict=True):
            samples.append(self._sample(prompt, text, policy, spec))
            n_tokens += len(samples[-1].token_ids_T)
            if self._progress is not None:
                self._progress(n_tokens, len(samples))
        self._next = stop
        return samples

    def identity(self) -> str:
        return f"scripted:{self._path.name}"

    def close(self) -> None:
        """Nothing to free."""

    def _sample(self, prompt: Prompt, text: str, policy: Policy, spec: SamplingSpec) -> Sample:
        if self._host is None:
            prompt_ids = tuple("\n".join(message.content for message in prompt.messages).encode())
            token_ids_T = tuple(text.encode())
            logprobs_T = (0.0,) * len(token_ids_T)
        else:
            host = self._host()
            tokenizer = host.tokenizer
            prompt_ids = tuple(encode_chat(tokenizer, prompt))
            end = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
            token_ids_T = (*tokenizer(text, add_special_tokens=False)["input_ids"], *end)
            with host.policy_active(policy) as model:
                logprobs_T = forced_logprobs(model, prompt_ids, token_ids_T, spec.temperature)
        return Sample(prompt, prompt_ids, token_ids_T, logprobs_T, text, Finish.STOP, policy)


def read_replies(path: Path) -> list[str]:
    """The texts of a replies file, in order; empty lines are skipped.

    Raises UserError naming file and line.
    """
    try:
        lines = path.read_text("utf-8").split("\n")
    except OSError as exc:
        raise UserError(f"cannot read the replies file {path}: {exc.strerror}") from None
    except UnicodeDecodeError as exc:
        raise UserError(f"the replies file {path} is not UTF-8: {exc.reason} at byte {exc.start}") from None
    return [_reply(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]


class _Reply(BaseModel, strict=True):
    text: str


def _reply(line: str, place: str) -> str:
    try:
        return _Reply.model_validate_json(line).text
    except ValidationError as exc:
        form = 'a reply is one JSON object a line, {"text": "..."}'
        raise UserError(f"{place}: {exc.errors()[0]['msg']}; {form}") from None


PLUGIN = ScriptedEngine
