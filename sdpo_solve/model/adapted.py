"""`AdaptedModel`: the base weights of this process with the LoRA adapters that make them a policy.

One causal LM with two adapters by PEFT's names: `policy` (samples and is trained) and `teacher`. Each of the
two slots is labelled with the key of the weights it holds, so that those of another key are never served by
mistake. The base weights never change: without an adapter, logits are those of the base. Trains nothing
(the learner does).
"""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from sdpo_solve.config import Quantization
from sdpo_solve.errors import ConfigError, EngineError, LearnerError, PrerequisiteError, one_line
from sdpo_solve.model import four_bit, lean, lora_mix
from sdpo_solve.model.capability import (
    auto_class,
    context_tokens,
    expert_count,
    expert_types,
    read_config,
    refusal_of,
)
from sdpo_solve.model.cpu import is_out_of_memory, keep_freed_memory, memory_errors
from sdpo_solve.model.device import best_device, fast_dtype
from sdpo_solve.protocols import PolicyMix
from sdpo_solve.types import Policy

Slot = Literal["policy", "teacher"]

# In alphabetical order, as they are read back from a file.
TARGETS: Mapping[str, tuple[str, ...]] = {
    "attention": ("k_proj", "o_proj", "q_proj", "v_proj"),
    "all": ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"),
}
WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"


@dataclass(frozen=True, slots=True)
class AdapterShape:
    """Rank, alpha, target modules and parameters of an adapter; its product is scaled by alpha / rank.

    For a parameter [E, out, in] of E experts, PEFT's factors are A [E * rank, in], an expert after the other,
    and B [out, rank * E], a rank after the other.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...]
    parameters: tuple[str, ...] = ()

    @property
    def scaling(self) -> float:
        return self.alpha / self.rank


class AdaptedModel:
    """A causal LM with its adapter slots; implements `protocols.PolicyHost`.

    Always in eval mode outside the learner's own passes. One thread at a time uses the model: the contexts
    below take `turn`, and who needs what a slot holds to stay over several of them holds it for as long.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._base = model.eval().requires_grad_(False)
        self._peft: Any = None
        self._tokenizer = tokenizer
        self._shapes: dict[Slot, AdapterShape] = {}
        self._keys: dict[Slot, str] = {}
        self.choices: dict[AdapterShape, Any] = {}
        """How adapters of a shape are trained here: the learner's business, kept for the model's lifetime."""
        self.turn = threading.RLock()

    @classmethod
    def load(
        cls,
        model_dir: Path,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        quantization: Quantization | None = None,
    ) -> AdaptedModel:
        """Weights and tokenizer from a Hugging Face directory.

        `device` None: an accelerator where there is one. `dtype` None: bfloat16, or float32 where the device
        multiplies that faster. `quantization`: of linear layers but the head; their products are taken in
        `dtype`. Raises ConfigError where the directory is not a causal LM, or holds not all of
        its weights, and PrerequisiteError without the package that quantises and where memory runs out.
        """
        from transformers import AutoTokenizer
        from transformers.utils import logging

        device = torch.device(device or best_device())
        logging.disable_progress_bar()
        keep_freed_memory()
        dtype = dtype or fast_dtype(device, model_dir)
        four_bit.hush()
        quantised = {} if quantization is None else four_bit.loading_options(device, dtype)
        config = read_config(model_dir)
        if (refusal := refusal_of(config)) is not None:
            raise ConfigError(f"{model_dir} is not supported: {refusal}")
        is_lean = not quantised and lean.is_fast(device, dtype)
        narrow = lean.narrow_dtype(config, dtype) if is_lean else dtype
        remedy = "take a smaller model" if quantised else "take a smaller model, or --quantization 4bit"
        too_large = f"{model_dir} does not fit into the memory of {device}: {remedy}; what it needs: "
        with memory_errors(PrerequisiteError, f"{too_large}sdpo-solve doctor --model {model_dir}"):
            model = _pretrained(model_dir, config, narrow, quantised)
            if narrow is not dtype and lean.is_rounded(model, narrow):
                model = _pretrained(model_dir, config, dtype, quantised)
            if is_lean:
                lean.make_lean(model, dtype)
            if quantised:
                four_bit.keep_differentiable(model)
            else:
                model = model.to(device)
        try:
            tokenizer = AutoTokenizer.from_pretrained(model_dir, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
            raise ConfigError(f"the tokenizer of {model_dir} cannot be read: {one_line(exc)}") from None
        return cls(model, tokenizer)

    @property
    def tokenizer(self) -> Any:
        return self._tokenizer

    @property
    def device(self) -> torch.device:
        device: torch.device = self._base.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self._base.dtype
        return dtype

    @property
    def context_tokens(self) -> int:
        """Tokens that prompt and answer may take together."""
        return context_tokens(self._base.config)

    @property
    def can_mix(self) -> bool:
        """Whether rows of several policies can share a pass.

        Not where layers see some rows' tokens only, nor where one is no `nn.Linear` (GPT-2's are not): it
        gets PEFT's own adapter, which is one policy's.
        """
        from transformers.pytorch_utils import Conv1D

        has_other_layers = any(isinstance(module, Conv1D) for module in self._base.modules())
        return not has_other_layers and not expert_count(self._base.config)

    @property
    def model(self) -> Any:
        """The causal LM as it stands now, whichever slot is on."""
        return self._base

    # -- which weights are on ------------------------------------------------------------------------------

    @contextmanager
    def policy_active(self, policy: Policy) -> Iterator[Any]:
        """The causal LM with exactly that policy's weights, in eval mode.

        Raises EngineError where its adapter is neither in the slot nor on disk.
        """
        if policy.adapter_dir is None:
            with self.base_active() as model:
                yield model
            return
        with self.turn:
            if self._keys.get("policy") != policy.key:
                try:
                    weights = read_tensors(policy.adapter_dir / WEIGHTS_FILE)
                    self.put("policy", policy.key, read_shape(policy.adapter_dir), weights)
                except (OSError, LearnerError, ValueError, KeyError) as exc:
                    raise EngineError(f"no weights for policy {policy.key}: {one_line(exc)}") from None
            with self.slot_active("policy", policy.key) as model:
                yield model

    @contextmanager
    def policies_active(self, policies_K: Sequence[Policy]) -> Iterator[PolicyMix]:
        """The causal LM with the weights of several policies side by side, for sampling.

        Raises EngineError where an adapter is not on disk or does not fit this model.
        """
        with self.turn:
            try:
                adapters_K = [self._loaded(policy) for policy in policies_K]
                layers = self._layers()
                choice = lora_mix.RowChoice([x.rank for x in adapters_K], self.device, self.dtype)
                added = lora_mix.stacked_adapters(adapters_K, layers, choice)
            except LearnerError as exc:
                raise EngineError(f"no weights for some of these policies: {exc}") from None
            try:
                for name, adapters in added.items():
                    layers[name].several = adapters
                with self.base_active() as model:
                    yield PolicyMix(model, choice)
            finally:
                for name in added:
                    layers[name].several = None

    @contextmanager
    def base_active(self) -> Iterator[Any]:
        """The causal LM without any adapter."""
        with self.turn, self._peft.disable_adapter() if self._peft is not None else nullcontext():
            yield self._base

    @contextmanager
    def slot_active(self, slot: Slot, key: str) -> Iterator[Any]:
        """The causal LM with the adapter of a slot, which must hold `key`.

        Raises LearnerError where it holds something else.
        """
        with self.turn:
            if self._keys.get(slot) != key:
                raise LearnerError(f"the {slot} slot holds {self._keys.get(slot)}, not {key}")
            self._peft.set_adapter(slot)
            yield self._base

    # -- what the slots hold -------------------------------------------------------------------------------

    def put(self, slot: Slot, key: str, shape: AdapterShape, weights: Mapping[str, Tensor]) -> None:
        """Copy adapter weights, named as `parameters` names them, into a slot and label it `key`.

        Raises LearnerError where names or shapes are not those of this model's adapter.
        """
        parameters = self.shape_adapter(slot, shape)
        if parameters.keys() != weights.keys():
            odd = sorted(parameters.keys() ^ weights.keys())
            raise LearnerError(f"adapter weights do not fit this model: {odd[0]} is on one side only")
        with torch.no_grad():
            for name, parameter in parameters.items():
                if parameter.shape != weights[name].shape:
                    raise LearnerError(f"adapter weights do not fit this model: {name} has another shape")
                parameter.copy_(weights[name])
        self._keys[slot] = key

    def parameters(self, slot: Slot) -> dict[str, torch.nn.Parameter]:
        """The slot's parameters by the names that the PEFT file format gives them."""
        mark = f".{slot}."
        return {
            name.replace(mark, "."): parameter
            for name, parameter in self._peft.named_parameters()
            if mark in name and "lora_" in name
        }

    def drop(self, slot: Slot) -> None:
        """Forget what a slot holds."""
        self._keys.pop(slot, None)

    def shape_adapter(self, slot: Slot, shape: AdapterShape) -> dict[str, torch.nn.Parameter]:
        """Make the slot of that shape, its content undefined until `put`; returns its parameters.

        Raises LearnerError where the model has no layers for it.
        """
        from peft import get_peft_model

        from sdpo_solve.model.lora_experts import ParamWrapper
        from sdpo_solve.model.lora_layer import LeanLinear

        self.drop(slot)
        if self._shapes.get(slot) == shape:
            return self.parameters(slot)
        config = peft_config(shape)
        experts = dict.fromkeys(expert_types(self._base), ParamWrapper)
        config._register_custom_module({torch.nn.Linear: LeanLinear, **experts})
        try:
            with warnings.catch_warnings():
                # peft 0.21 asks transformers 5.24 by a name that it will drop in version 6
                warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")
                warnings.filterwarnings("ignore", message="Adapter .* was active")
                warnings.filterwarnings(
                    "ignore", message="fan_in_fan_out is set to False"
                )  # GPT-2: it is set
                if self._peft is None:
                    self._peft = get_peft_model(self._base, config, adapter_name=slot)
                else:
                    if slot in self._shapes:
                        self._peft.delete_adapter(slot)
                    self._peft.add_adapter(slot, config)
                    self._peft.set_adapter(slot)
        except ValueError as exc:
            raise LearnerError(f"no adapter fits this model: {one_line(exc)}") from None
        self._shapes[slot] = shape
        self._base.eval()
        return self.parameters(slot)

    def _loaded(self, policy: Policy) -> lora_mix.LoadedAdapter:
        """A policy's adapter from the disk, its layers made fit for one."""
        if policy.adapter_dir is None:
            return lora_mix.BASE
        shape = read_shape(policy.adapter_dir)
        if not set(shape.targets) <= {name.rpartition(".")[2] for name in self._layers()}:
            self.shape_adapter("policy", shape)
        tensors = read_tensors(policy.adapter_dir / WEIGHTS_FILE)
        return lora_mix.LoadedAdapter.of(tensors, shape.rank, shape.scaling)

    def _layers(self) -> dict[str, Any]:
        """The layers that have had an adapter in some slot, by their names in the PEFT file format."""
        from sdpo_solve.model.lora_layer import LeanLinear

        named = [] if self._peft is None else self._peft.named_modules()
        return {name: module for name, module in named if isinstance(module, LeanLinear)}


# -- adapters on disk ----------------------------------------------------------------------------------------


def peft_config(shape: AdapterShape) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=shape.rank,
        lora_alpha=shape.alpha,  # type: ignore[arg-type]  # PEFT says int and divides
        target_modules=list(shape.targets),
        target_parameters=list(shape.parameters) or None,
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )


def read_shape(adapter_dir: Path) -> AdapterShape:
    """The shape in a PEFT directory.

    Raises LearnerError where the file is missing or damaged.
    """
    path = adapter_dir / CONFIG_FILE
    try:
        config = json.loads(path.read_text())
        modules, parameters = config["target_modules"], config.get("target_parameters") or ()
        return AdapterShape(
            config["r"], config["lora_alpha"], tuple(sorted(modules)), tuple(sorted(parameters))
        )
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise LearnerError(f"cannot read {path}: {one_line(exc)}") from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises LearnerError naming the file where it is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as exc:
        raise LearnerError(f"cannot read {path}: {one_line(exc)}") from None


# -- parts ---------------------------------------------------------------------------------------------------


def _pretrained(model_dir: Path, config: Any, dtype: torch.dtype, quantised: dict[str, Any]) -> Any:
    """The causal LM. Raises ConfigError as `AdaptedModel.load` does."""
    from safetensors import SafetensorError

    try:
        model, report = auto_class(config).from_pretrained(
            model_dir, dtype=dtype, local_files_only=True, output_loading_info=True, **quantised
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as exc:
        if isinstance(exc, RuntimeError) and is_out_of_memory(exc):
            raise
        raise ConfigError(f"{model_dir} cannot be loaded: {one_line(exc)}") from None
    if missing := sorted(report["missing_keys"]):
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ConfigError(f"{model_dir}: the weight {missing[0]}{others} is in none of its files")
    return model
