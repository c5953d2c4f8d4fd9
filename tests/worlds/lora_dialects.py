"""LoRA files for transformers as other trainers write them, and whether two change the same."""

import torch
from torch import Tensor

from personae.artifacts.artifact import Artifact
from personae.artifacts.low_rank import updates_of


def deltas(artifact: Artifact) -> dict[str, Tensor]:
    return {layer: update.delta() for layer, update in updates_of(artifact).items()}


def same(artifact: Artifact, wanted: Artifact) -> None:
    torch.testing.assert_close(deltas(artifact), deltas(wanted), rtol=0, atol=5e-6)


def written_by_musubi(lora: Artifact) -> dict[str, Tensor]:
    tensors = {}
    for layer, update in updates_of(lora).items():
        name = "lora_unet_" + layer.removeprefix("denoiser.").replace(".", "_")
        tensors[f"{name}.lora_down.weight"] = update.down
        tensors[f"{name}.lora_up.weight"] = update.up
        tensors[f"{name}.alpha"] = torch.tensor(update.scale * update.rank)
    return tensors


def written_with(start: str, flat: bool, lora: Artifact) -> dict[str, Tensor]:
    tensors = {}
    for layer, update in updates_of(lora).items():
        name = layer.removeprefix("denoiser.")
        name = start + (name.replace(".", "_") if flat else name)
        tensors[f"{name}.lora_A.weight"] = update.down
        tensors[f"{name}.lora_B.weight"] = update.folded().up
    return tensors


DIALECTS = {
    "ai-toolkit": lambda lora: written_with("diffusion_model.", False, lora),
    "diffusers": lambda lora: written_with("transformer.", False, lora),
    "DiffSynth": lambda lora: written_with("", False, lora),
    "SimpleTuner": lambda lora: written_with("lycoris_", True, lora),
    "OneTrainer": lambda lora: written_with("lora_transformer_", True, lora),
    "musubi-tuner": written_by_musubi,
}
