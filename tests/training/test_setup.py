"""What is made before the first step."""

from __future__ import annotations

from pathlib import Path

from personae.models.load import load_base
from tiny_world import run_config, shallow_pipeline, trainer_of


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
