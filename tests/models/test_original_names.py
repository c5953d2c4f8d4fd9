"""Names of layers in the code that a base was published with."""

from personae.models.original_names import OriginalNames

NAMES = OriginalNames(
    {
        "blocks.#.qkv": ("layers.#.to_q", "layers.#.to_k", "layers.#.to_v"),
        "head": ("all_heads.2-1",),
    }
)


def test_parts_of_one_matrix_are_found_together_in_the_order_of_their_rows() -> None:
    layers = [f"layers.{block}.to_{part}" for block in (0, 11) for part in "vqk"]
    assert NAMES.of([*layers, "all_heads.2-1"]) == {
        "blocks.0.qkv": ("layers.0.to_q", "layers.0.to_k", "layers.0.to_v"),
        "blocks.11.qkv": ("layers.11.to_q", "layers.11.to_k", "layers.11.to_v"),
        "head": ("all_heads.2-1",),
    }


def test_a_layer_without_a_rule_keeps_its_path() -> None:
    assert NAMES.of(["layers.0.w1"]) == {"layers.0.w1": ("layers.0.w1",)}


def test_a_matrix_that_lacks_a_part_has_no_name() -> None:
    assert NAMES.of(["layers.0.to_q", "layers.0.to_k"]) == {}


def test_a_dot_in_a_rule_is_a_dot() -> None:
    assert NAMES.of(["layersx0.to_q"]) == {"layersx0.to_q": ("layersx0.to_q",)}
