"""How FLUX.1's own code names the layers of diffusers' transformer."""

from __future__ import annotations

from personae.models.original_names import OriginalNames

_DOUBLE = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "img_attn.proj": ("attn.to_out.0",),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "txt_attn.proj": ("attn.to_add_out",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
    "img_mod.lin": ("norm1.linear",),
    "txt_mod.lin": ("norm1_context.linear",),
}
_SINGLE = {
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "modulation.lin": ("norm.linear",),
}
_NORMS = {
    ("double_blocks.#.img_attn", "transformer_blocks.#.attn"): ("norm_q", "norm_k"),
    ("double_blocks.#.txt_attn", "transformer_blocks.#.attn"): ("norm_added_q", "norm_added_k"),
    ("single_blocks.#", "single_transformer_blocks.#.attn"): ("norm_q", "norm_k"),
}
_EMBEDDERS = {
    "time_in": "timestep_embedder",
    "vector_in": "text_embedder",
    "guidance_in": "guidance_embedder",
}
NAMES = OriginalNames(
    {
        f"{there}.#.{original}": tuple(f"{here}.#.{part}" for part in parts)
        for there, here, names in (
            ("double_blocks", "transformer_blocks", _DOUBLE),
            ("single_blocks", "single_transformer_blocks", _SINGLE),
        )
        for original, parts in names.items()
    }
    | {
        f"{there}.{layer}": (f"time_text_embed.{here}.{part}",)
        for there, here in _EMBEDDERS.items()
        for layer, part in (("in_layer", "linear_1"), ("out_layer", "linear_2"))
    }
    | {
        f"{there}.norm.{which}_norm.scale": (f"{here}.{norm}.weight",)
        for (there, here), norms in _NORMS.items()
        for which, norm in zip(("query", "key"), norms, strict=True)
    }
    | {
        "img_in": ("x_embedder",),
        "txt_in": ("context_embedder",),
        "final_layer.linear": ("proj_out",),
    },
    swapped={"final_layer.adaLN_modulation.1": "norm_out.linear"},
)
"""Source: `convert_flux_transformer_checkpoint_to_diffusers` of diffusers 0.42.
"""
