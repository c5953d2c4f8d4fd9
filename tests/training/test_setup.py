"""What is made before the first step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from personae.core.devices import HOST
from personae.errors import UsageError
from personae.models.families.z_image import ZImage
from personae.models.load import load_base
from personae.models.toys import tiny_z_image
from tiny_world import paint, run_config, shallow_pipeline, trainer_of


def test_class_pictures_are_cached_under_the_autoencoder_that_encoded_them(
    character: Path, tmp_path: Path
) -> None:
    """Also where its values have left memory before the class pictures are drawn."""
    shallow_pipeline().save_pretrained(tmp_path / "base")
    base = load_base(tmp_path / "base", device="cpu", precision="fp32", acceleration="none")
    whole = base.autoencoding
    settings = {"steps": 1, "prior": "images", "prior_images": 1}
    config = run_config(character, base=base.source, unload=True, schedule=settings)
    trainer = trainer_of(config, base)
    trainer.eject()
    assert base.unloaded.away
    assert trainer.pictures.encoder == trainer.prior.encoder == whole


def test_a_base_distilled_for_few_steps_is_refused_with_the_one_to_train_on(
    tmp_path: Path,
) -> None:
    pipe = tiny_z_image()
    pipe.register_modules(scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0))
    turbo = ZImage.from_pipeline(pipe, "turbo", HOST, torch.float32)
    character = paint(tmp_path / "mira", 3)
    wanted = r"base 'turbo' was distilled .*; train on Tongyi-MAI/Z-Image, or add --distilled"
    with pytest.raises(UsageError, match=wanted):
        trainer_of(run_config(character), turbo)
    trainer = trainer_of(run_config(character, distilled=True), turbo)
    trainer.eject()
