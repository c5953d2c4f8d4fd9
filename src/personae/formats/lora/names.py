"""How other tools call the layers of a base in LoRA files.

Every spelling of every layer is listed in one index made from the base itself, so that a name is
either found or the file is for something else; nothing is guessed from underscores.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from personae.formats.layout import Layout, ldm_unet_name
from personae.formats.ldm_names import with_text_model
from personae.models.components import text_component, text_network
from personae.models.family import Family

DENOISER_PREFIXES = ("lora_unet_", "lycoris_", "lora_transformer_")
"""Of names with underscores: kohya and musubi-tuner, SimpleTuner's LyCORIS, OneTrainer."""

_ATTENTION_PROCESSOR = {"to_out": "to_out.0"}
_TEXT_PROCESSOR = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}


def kohya_name(layer: str, base: Family, layout: Layout) -> str:
    """Return kohya's name of `layer`: `lora_<part>_` and the path with underscores.

    Stable Diffusion XL keeps its U-Net under the names of the original code.
    """
    network, name = layer.split(".", 1)
    if network == "denoiser":
        name = ldm_unet_name(base.denoiser, name) if layout.kind == "sdxl" else name
        return f"lora_unet_{_flat(name)}"
    towers = [text_network(i) for i in range(len(base.towers))]
    return layout.text_prefixes[towers.index(network)] + _flat(with_text_model(name))


def diffusers_name(layer: str, family: type[Family]) -> str:
    """Return diffusers' name of `layer`: the name of its component, a dot and the path.

    Components are such as `unet`, `transformer` and `text_encoder_2`.
    """
    network, name = layer.split(".", 1)
    if network == "denoiser":
        return f"{family.denoiser_component}.{name}"
    # CLIP's level; language models as text encoders have none
    path = with_text_model(name) if family.file_layouts else name
    return f"{text_component(_tower(network))}.{path}"


def index_of_names(base: Family) -> dict[str, tuple[str, ...]]:
    """Return {any known spelling: layers} over all layers of `base`.

    A spelling stands for several layers where they are one matrix in the original code.
    """
    index: dict[str, tuple[str, ...]] = {}
    for layer in base.layers():
        for spelling in _spellings(layer, base):
            index.setdefault(spelling, (layer,))
    for original, layers in original_names(base).items():
        for spelling in _denoiser_spellings(original, base):
            index.setdefault(spelling, layers)
    return index


def original_names(base: Family) -> dict[str, tuple[str, ...]]:
    """Return {name in the original code: layers} of the denoiser; {} where none are known."""
    if base.original_names is None:
        return {}
    start = "denoiser."
    paths = [name.removeprefix(start) for name in base.layers() if name.startswith(start)]
    return {
        original: tuple(start + part for part in parts)
        for original, parts in base.original_names.of(paths).items()
    }


def plain_stem(stem: str) -> str:
    """Return `stem` with the names of attention processors replaced by those of layers."""
    found = re.match(r"(.*)\.processor\.(to_\w+)$", stem)
    if found:
        return f"{found[1]}.{_ATTENTION_PROCESSOR.get(found[2], found[2])}"
    found = re.match(r"(.*\.self_attn)\.(to_\w+)$", stem)
    if found:
        return f"{found[1]}.{_TEXT_PROCESSOR.get(found[2], found[2])}"
    return stem


def _spellings(layer: str, base: Family) -> Iterator[str]:
    network, name = layer.split(".", 1)
    if network == "denoiser":
        yield layer
        yield from _denoiser_spellings(name, base)
        if base.file_layout:
            yield f"lora_unet_{_flat(ldm_unet_name(base.denoiser, name))}"
        return
    number = _tower(network)
    prefixes = ["lora_te_", "lora_te1_"] if number == 0 else [f"lora_te{number + 1}_"]
    dotted = text_component(number)
    for path in (with_text_model(name), name.removeprefix("text_model.")):
        yield from (f"{prefix}{_flat(path)}" for prefix in prefixes)
        yield from (f"{dotted}.{path}", f"{network}.{path}")
        yield f"base_model.model.{dotted}.{path}"
        yield f"base_model.model.{path}"


def _denoiser_spellings(name: str, base: Family) -> Iterator[str]:
    """Yield what kohya's scripts, diffusers, PEFT, ai-toolkit, SimpleTuner and OneTrainer write."""
    dotted = base.denoiser_component
    starts = ("", f"{dotted}.", "diffusion_model.", "base_model.model.")
    yield from (start + name for start in (*starts, f"base_model.model.{dotted}."))
    yield from (start + _flat(name) for start in DENOISER_PREFIXES)


def _tower(network: str) -> int:
    return int(network.removeprefix("text_encoder") or 0)


def _flat(name: str) -> str:
    return name.replace(".", "_")
