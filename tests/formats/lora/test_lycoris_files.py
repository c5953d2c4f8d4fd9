"""LyCORIS kinds beyond LoHa and LoKr: read where a sum of matrices is what they are, or refused."""

import pytest
import torch
from safetensors.torch import save_file

from format_world import draw
from personae.artifacts.low_rank import updates_of
from personae.errors import ArtifactError
from personae.formats.format import import_file

LINEAR = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
CONVOLUTION = "mid_block.resnets.0.conv1"


def written(tmp_path, layer: str, parts: dict):
    path = tmp_path / "mira.safetensors"
    stem = "lora_unet_" + layer.replace(".", "_")
    save_file({f"{stem}.{name}": value for name, value in parts.items()}, path)
    return path


def glora(weight, swapped: bool) -> dict:
    out, inputs = weight.shape[:2]
    kernel = weight.shape[2:]
    ones = [1] * len(kernel)
    a1, a2 = draw(inputs, 2, *ones) * 0.3, draw(2, inputs, *ones) * 0.3
    b1, b2 = draw(out, 2, *ones, seed=1) * 0.3, draw(2, inputs, *kernel, seed=2) * 0.3
    if swapped:
        a1, a2, b1, b2 = a2, a1, b2, b1
    parts = {"a1.weight": a1, "a2.weight": a2, "b1.weight": b1, "b2.weight": b2}
    return {name: value.contiguous() for name, value in parts.items()}


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("layer", [LINEAR, CONVOLUTION])
def test_glora_is_read_exactly_in_both_orders_of_its_factors(layer, swapped, bases, tmp_path):
    module = bases["sd1"].denoiser.get_submodule(layer)
    parts = glora(module.weight, swapped)
    path = written(tmp_path, layer, parts | {"alpha": torch.tensor(1.0)})
    (update,) = updates_of(import_file(path, bases["sd1"])).values()
    plain = glora(module.weight, False)
    x = draw(1, module.weight.shape[1], *([5, 5] if module.weight.dim() == 4 else []))
    kernel = (lambda w, v: torch.nn.functional.conv2d(v, w, padding=w.shape[-1] // 2)) if (
        module.weight.dim() == 4
    ) else (lambda w, v: v @ w.T)  # fmt: skip
    carried = kernel(module.weight, kernel(plain["a1.weight"], kernel(plain["a2.weight"], x)))
    added = kernel(plain["b1.weight"], kernel(plain["b2.weight"], x))
    wanted = (carried + added) / 2
    assert (kernel(update.delta(), x) - wanted).abs().max() < 1e-3
    assert update.rank <= (4 if module.weight.dim() == 2 else 20)


REFUSED = {
    "IA3, which multiplies": {"weight": draw(48), "on_input": torch.tensor(False)},
    "OFT, which rotates": {"oft_blocks": draw(4, 12, 12)},
    "OFT,": {"oft_diag": draw(48)},
    "changed norms": {"w_norm": draw(48), "b_norm": draw(48)},
    "changed biases": {"diff": draw(48, 24), "diff_b": draw(48)},
    "Tucker core": {**dict.fromkeys(("a1.weight",), draw(4, 4)), "bm.weight": draw(2, 2)},
    "replaced weights": {"set_weight": draw(48, 24)},
    "is no part of": {"something": draw(3)},
}


@pytest.mark.parametrize("reason", REFUSED)
def test_other_kinds_are_refused_in_one_line_that_says_why(reason, bases, tmp_path):
    path = written(tmp_path, LINEAR, REFUSED[reason])
    with pytest.raises(ArtifactError, match=reason) as caught:
        import_file(path, bases["sd1"])
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_glora_whose_factors_cannot_be_told_apart_is_refused(bases, tmp_path):
    square = draw(24, 24)
    parts = {f"{name}.weight": square.clone() for name in ("a1", "a2", "b1", "b2")}
    with pytest.raises(ArtifactError, match="do not fit"):
        import_file(written(tmp_path, LINEAR, parts), bases["sd1"])
