"""Ways in which an engine may hold an adapter in part: each changes one projection of its tensors."""

from typing import Any


def of(tensors: dict[str, Any], projection: str) -> list[str]:
    return [name for name in tensors if f"{projection}.lora_B" in name]


def zero(tensors: dict[str, Any]) -> None:
    for name in of(tensors, "up_proj"):
        tensors[name].zero_()


def copy_gate(tensors: dict[str, Any]) -> None:
    for part in ("A", "B"):
        for name in [name for name in tensors if f"up_proj.lora_{part}" in name]:
            tensors[name] = tensors[name.replace("up_proj", "gate_proj")].clone()


def halve(tensors: dict[str, Any]) -> None:
    for name in of(tensors, "up_proj"):
        tensors[name] *= 0.5


def negate(tensors: dict[str, Any]) -> None:
    for name in of(tensors, "up_proj"):
        tensors[name] *= -1


DAMAGES = (zero, copy_gate, halve, negate)
