"""Choosing accelerations: settings, the probe and its cache, recipes and runs."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

import pytest
import torch

from personae.artifacts.artifact import Artifact
from personae.core.registry import discover
from personae.errors import UsageError
from personae.generation.cast import Cast
from personae.generation.generate import draw
from personae.generation.picture import Picture
from personae.generation.redraw import redraw
from personae.generation.sampler import Shot
from personae.generation.settings import Sampling
from personae.models.acceleration import choice
from personae.models.acceleration.acceleration import Acceleration
from personae.models.acceleration.choice import accelerated, choose, setting
from personae.models.families.stable_diffusion import StableDiffusion
from personae.models.family import Family
from personae.models.forwards import Forwards
from personae.training.events import Finished, Stopped
from tiny_world import bases, make, only, prediction, run, run_config, weights

ALL = "packed_convolutions,packed_linears,matmul_attention,kept_text"


@pytest.fixture
def quick() -> Family:
    """Return the tiny SD 1.x base, allowed to choose, with forwards of its own."""
    plain = bases()["tiny-sd1"]
    assert isinstance(plain, StableDiffusion)
    base = dataclasses.replace(plain, acceleration="auto", forwards=Forwards())
    yield base
    base.forwards.remove()


def test_a_wrong_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'packed_linears'"):
        setting("packed_linear")
    assert setting(ALL) == ALL


def test_the_environment_decides_where_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(choice.VARIABLE, "kept_text")
    assert setting() == "kept_text"
    assert setting("none") == "none"
    monkeypatch.delenv(choice.VARIABLE)
    assert setting() == "auto"


def test_a_base_that_allows_none_is_left_alone(quick: Family) -> None:
    quick.acceleration = "none"
    before = [module.__dict__.get("forward") for module in quick.denoiser.modules()]
    with accelerated(quick, 2, training=True):
        now = [module.__dict__.get("forward") for module in quick.denoiser.modules()]
    assert all(one is other for one, other in zip(now, before, strict=True))


def test_the_probe_chooses_one_of_each_part_at_most_and_leaves_no_trace(quick: Family) -> None:
    plain, kept = prediction(quick), weights(quick)
    for training in (False, True):
        chosen = [discover(Acceleration)[n] for n in choose(quick, 2, training=training)]
        assert len({kind.part for kind in chosen}) == len(chosen)
        assert not (training and any(kind.inference_only for kind in chosen))
    assert torch.equal(prediction(quick), plain)
    assert all(torch.equal(value, kept[name]) for name, value in weights(quick).items())
    assert all(parameter.grad is None for parameter in quick.denoiser.parameters())


def test_a_choice_once_made_is_kept(quick: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    first = choose(quick, 3, training=True)
    monkeypatch.setattr(choice, "quickest", lambda *_: pytest.fail("measured again"))
    assert choose(quick, 3, training=True) == first
    assert choose(quick, 4, training=True) == first  # rows are probed by powers of two


def test_a_damaged_cache_is_measured_again(quick: Family, tmp_path: Path) -> None:
    choose(quick, 2, training=False)
    (file,) = (choice.default_folder() / "acceleration").glob("*.json")
    file.write_text("{", encoding="utf-8")
    assert isinstance(choose(quick, 2, training=False), list)
    assert '"value"' in file.read_text(encoding="utf-8")


def test_a_choice_made_of_other_code_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "quick_way.py").write_text("class Way: pass\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    kind = importlib.import_module("quick_way").Way
    first = choice._code([kind])
    assert choice._code([kind]) == first
    (tmp_path / "beside.py").write_text("PIECE = 2\n", encoding="utf-8")
    assert choice._code([kind]) != first
    assert choice._code([*discover(Acceleration).values()]) != first


def test_after_the_block_the_base_computes_as_before(quick: Family) -> None:
    quick.acceleration = ALL
    plain = prediction(quick)
    with accelerated(quick, 2, training=True):
        assert quick.forwards.names(training=False) == sorted(ALL.split(","))
        assert "kept_text" not in quick.forwards.names(training=True)
        inside = prediction(quick)
        with accelerated(quick, 4):
            assert torch.equal(prediction(quick), inside)
        assert torch.equal(prediction(quick), inside)
    assert torch.equal(prediction(quick), plain)
    assert torch.allclose(inside, plain, atol=1e-4)


def test_a_recipe_draws_the_same_bytes_whatever_the_base_would_choose(
    quick: Family, tmp_path: Path
) -> None:
    quick.acceleration = ALL
    sampling = Sampling(steps=3)
    (drawn,) = draw(quick, [Shot("the man", 1)], sampling)
    assert drawn.recipe.acceleration == sorted(ALL.split(","))
    kept = Picture.open(drawn.save(tmp_path / "picture.png"))
    quick.acceleration = "none"
    again = redraw(quick, kept.recipe, Cast())
    assert again.image.tobytes() == drawn.image.tobytes()
    assert again.recipe == drawn.recipe
    assert quick.acceleration == "none"
    (plain,) = draw(quick, [Shot("the man", 1)], sampling)
    quick.acceleration = ALL
    assert redraw(quick, plain.recipe, Cast()).image.tobytes() == plain.image.tobytes()


def test_a_resumed_run_with_accelerations_ends_in_the_same_bits(
    quick: Family, character: Path, tmp_path: Path
) -> None:
    """The prior's targets are predicted without gradients, previews change what computes them."""
    quick.acceleration = ALL
    config = run_config(
        character,
        schedule={"steps": 3, "prior": "prediction"},
        checkpoint_every=1,
        preview_every=1,
        preview_prompts=["{character}"],
    )
    whole = only(run(config, tmp_path / "whole", quick), Finished)[0]
    asked = iter([False, False, True])
    part = run(config, tmp_path / "part", quick, should_stop=lambda: next(asked))
    assert only(part, Stopped)
    rest = only(run(config, tmp_path / "part", quick, resume=True), Finished)[0]
    mine, theirs = (Artifact.load(each.path).tensors for each in (rest, whole))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_frozen_convolutions_keep_no_inputs_for_the_backward_pass(quick: Family) -> None:
    """What is kept is counted in bytes of tensors saved by autograd."""

    def saved() -> int:
        kept: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        technique = make("lora", quick).inject()
        latents = torch.randn(2, *quick.latent_shape(64, 64)).requires_grad_()
        try:
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                quick.denoise(latents, torch.tensor([5, 500]), quick.encode_text(["a", "b"]))
        finally:
            technique.eject()
        owned = {p.untyped_storage().data_ptr() for p in quick.denoiser.parameters()}
        return sum(size for place, size in kept.items() if place not in owned)

    plain = saved()
    quick.acceleration = "packed_convolutions"
    with accelerated(quick, 2, training=True):
        assert saved() < 0.95 * plain
