"""The choice of a form of batch for a model: the fastest whose log-probs are those of its own forward pass.

Each form is tried on a few rows of different lengths that begin and end at different steps; what it samples
is scored again without a cache. Imports torch: import it late.
"""

from __future__ import annotations

from typing import Any

import torch

from sdpo_solve.engines._decoding import Batch, CohortBatch, Decoder, NotFiniteError, Row, RowBatch
from sdpo_solve.errors import EngineError, one_line
from sdpo_solve.model.capability import odd_layers
from sdpo_solve.model.cpu import is_out_of_memory
from sdpo_solve.types import Finish

_TEXT = "def add(a, b):\n    return a + b\n\nprint(add(1, 2))\n" * 2
_LENGTHS = (3, 12, 7, 5)
_N_TOKENS = 4
_TOLERANCES = {torch.float32: 1e-3, torch.float64: 1e-3, torch.float16: 0.03}
_TOLERANCE = 0.15  # bfloat16


def batch_type(model: Any, device: torch.device, tokenizer: Any) -> type[RowBatch]:
    """The form of a batch for `model` as it stands.

    Raises EngineError where no form gives the log-probs of its own forward pass.
    """
    ids = tuple(tokenizer(_TEXT, add_special_tokens=False)["input_ids"])
    decoder, faults = Decoder(model, device, 1.0), []
    for form in _forms(model, device):
        fault = _fault(decoder, form, ids)
        if fault is None:
            return form
        faults.append(fault)
    raise EngineError(f"this model cannot be sampled from with a cache: {faults[-1]}")


def _forms(model: Any, device: torch.device) -> list[type[RowBatch]]:
    if odd_layers(model.config) is not None:
        return [CohortBatch]
    if device.type != "cuda":
        return [Batch, CohortBatch]
    from sdpo_solve.engines._cuda_graph import SlotBatch

    return [SlotBatch, CohortBatch]


def _fault(decoder: Decoder, form: type[RowBatch], ids: tuple[int, ...]) -> str | None:
    """What is wrong with the samples of a form; None where nothing is.

    Raises NotFiniteError for a broken model.
    """
    rows = [Row(ids[:n], seed, _N_TOKENS) for seed, n in enumerate(_LENGTHS)]
    try:
        batch = form(decoder)
        batch.exchange(rows[:2])
        batch.step()
        batch.exchange(rows[2:3])
        batch.step()
        rows[0].finish = Finish.LENGTH
        batch.exchange(rows[3:])
        for _ in range(_N_TOKENS - 2):
            batch.step()
    except NotFiniteError:
        raise
    except RuntimeError as exc:
        if is_out_of_memory(exc):
            raise
        return one_line(exc)
    except Exception as exc:  # noqa: BLE001 -- an architecture that a form does not know fails in its own way
        return one_line(exc)
    gaps = [gap for row in rows for gap in _gaps(decoder.model, decoder.device, row)]
    mean = sum(gaps) / len(gaps)
    if mean <= _TOLERANCES.get(decoder.model.dtype, _TOLERANCE):
        return None
    return f"its log-probs differ from those of its own forward pass by {mean:.3f} nats a token"


def _gaps(model: Any, device: torch.device, row: Row) -> list[float]:
    """The differences of the row's log-probs to those of one pass without a cache, in nats."""
    all_ids = [*row.prompt_ids, *row.token_ids]
    output = model(input_ids=torch.tensor([all_ids], device=device), use_cache=False)
    logprobs_TV = torch.log_softmax(output.logits[0, len(row.prompt_ids) - 1 : -1].float(), -1)
    right_T = logprobs_TV.gather(-1, torch.tensor(row.token_ids, device=device)[:, None])[:, 0].tolist()
    return [abs(a - b) for a, b in zip(right_T, row.logprobs, strict=True)]
