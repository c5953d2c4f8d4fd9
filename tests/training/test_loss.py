"""The loss of a step: masks, weights, priors, accumulation and the moving average."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from personae.core.cache import TensorCache, default_folder
from personae.models.family import Family
from personae.models.text import Frame
from personae.training.batches import Batch
from personae.training.loss import (
    Noised,
    captions_with_dropout,
    denoising_loss,
    draw_noise,
    predict,
    training_loss,
)
from personae.training.optim.updates import AfterBackward
from personae.training.schedule import Schedule
from personae.training.texts import TEXTS_IN_MEMORY, TextSource
from personae.training.trainer import Trainer
from tiny_world import make, noisy, paint, run_config, stir, trainer_of

FRAMES = [Frame.whole(64, 64)]


def batch_of(base: Family, rows: int = 2) -> Batch:
    latents, _ = noisy(base, rows)
    captions = ["a cat on the can", "the man", "the", "a"][:rows]
    return Batch(latents, None, torch.ones(rows), captions, ["a cat"] * rows, FRAMES * rows)


def trainer_for(character: Path, base: Family, **values: object) -> Trainer:
    config = run_config(character, **values)
    return trainer_of(config, base)


def texts_of(base: Family, folder: Path, *, frozen: bool = True) -> TextSource:
    return TextSource(base, TensorCache(folder), frozen=frozen)


def test_the_loss_is_the_squared_error_weighted_by_row_and_time(
    base: Family, tmp_path: Path
) -> None:
    batch = replace(batch_of(base), weights=torch.tensor([1.0, 0.25]))
    noised = draw_noise(base, batch, 0, "test", offset=0.0)
    text = texts_of(base, tmp_path)(batch.captions)
    with torch.no_grad():
        loss = denoising_loss(base, noised, text, gamma=5.0)
        target = base.path.target(batch.latents, noised.noise, noised.t)
        error = (predict(base, noised, text) - target).square().mean(dim=(1, 2, 3))
    wanted = error * base.path.weight(noised.t, 5.0) * torch.tensor([1.0, 0.25])
    torch.testing.assert_close(loss, wanted)


def test_a_mask_weighs_the_loss_place_by_place(sd1: Family, tmp_path: Path) -> None:
    batch = batch_of(sd1)
    mask = torch.zeros(2, 1, *batch.latents.shape[2:])
    mask[..., :4] = 2.0
    noised = draw_noise(sd1, replace(batch, mask=mask), 0, "test", offset=0.0)
    text = texts_of(sd1, tmp_path)(batch.captions)
    with torch.no_grad():
        loss = denoising_loss(sd1, noised, text, None)
        error = (predict(sd1, noised, text) - noised.noise).square()
    torch.testing.assert_close(loss, error[..., :4].mean(dim=(1, 2, 3)))


def test_masks_of_pictures_reach_the_batch_with_mean_one(sd1: Family, tmp_path: Path) -> None:
    trainer = trainer_for(
        paint(tmp_path / "masked", masks=True), sd1, schedule={"unmasked_weight": 0.1}
    )
    batch = trainer.pictures.batch(0)
    trainer.eject()
    assert batch.mask.shape == (2, 1, *batch.latents.shape[2:])
    torch.testing.assert_close(batch.mask.mean(dim=(1, 2, 3)), torch.ones(2))
    torch.testing.assert_close(batch.mask.amin() / batch.mask.amax(), torch.tensor(0.1))


def test_the_prediction_prior_is_nothing_before_training_and_holds_back_after(
    sd1: Family, tmp_path: Path
) -> None:
    technique = make("lora", sd1).inject()
    texts, batch = texts_of(sd1, tmp_path), batch_of(sd1)
    noised = draw_noise(sd1, batch, 0, "test", offset=0.0)

    def loss(prior: str) -> float:
        schedule = Schedule(prior=prior, prior_weight=10.0)
        options = {"captions": batch.captions, "prior": None}
        return training_loss(sd1, [technique], noised, texts, schedule, **options).item()

    try:
        assert loss("prediction") == loss("none")
        stir(technique)
        assert loss("prediction") > loss("none")
        assert technique.strength == 1.0
    finally:
        technique.eject()


def test_the_prior_of_class_pictures_adds_their_loss(sd1: Family, tmp_path: Path) -> None:
    technique = stir(make("lora", sd1)).inject()
    texts, batch = texts_of(sd1, tmp_path), batch_of(sd1)
    noised = draw_noise(sd1, batch, 0, "instance", offset=0.0)
    prior = draw_noise(sd1, batch, 0, "prior", offset=0.0)
    schedule = Schedule(prior="images", prior_weight=0.5)
    try:
        with torch.no_grad():
            options = {"captions": batch.captions, "prior": prior}
            both = training_loss(sd1, [technique], noised, texts, schedule, **options)
            mine = denoising_loss(sd1, noised, texts(batch.captions), 5.0).mean()
            kept = denoising_loss(sd1, prior, texts(batch.class_captions), 5.0).mean()
    finally:
        technique.eject()
    torch.testing.assert_close(both, mine + 0.5 * kept)


def test_fewer_prior_rows_count_as_much_as_one_for_each_picture(
    sd1: Family, tmp_path: Path
) -> None:
    technique = stir(make("lora", sd1)).inject()
    texts, batch = texts_of(sd1, tmp_path), batch_of(sd1, rows=4)
    noised = draw_noise(sd1, batch, 0, "test", offset=0.0)

    def prior_part(every: int | None, rows: Noised = noised) -> torch.Tensor:
        schedule = Schedule(prior="prediction", prior_every=every)
        own = {"captions": rows.batch.captions, "prior": None}
        alone = training_loss(sd1, [technique], rows, texts, Schedule(prior="none"), **own)
        return training_loss(sd1, [technique], rows, texts, schedule, **own) - alone

    try:
        with torch.no_grad():
            torch.testing.assert_close(prior_part(1), prior_part(None))
            first_and_third = Noised(batch[::2], noised.noise[::2], noised.t[::2])
            torch.testing.assert_close(prior_part(2), prior_part(1, first_and_third))
            torch.testing.assert_close(prior_part(4), prior_part(1, noised[:1]))
    finally:
        technique.eject()


def test_accumulation_equals_a_bigger_batch(character: Path, sd1: Family) -> None:
    schedule = {"gradient_accumulation": 2, "batch_size": 2, "caption_dropout": 0.0}
    trainer = trainer_for(character, sd1, schedule=schedule)
    stir(trainer.techniques[0])
    try:
        loss = trainer.backward(0)
        summed = [parameter.grad.clone() for parameter in trainer.parameters]
        trainer.optimizer.zero_grad()
        parts = [trainer._noised(trainer.pictures, "instance", 0, part) for part in range(2)]
        whole = Noised(
            Batch(
                torch.cat([part.batch.latents for part in parts]),
                None,
                torch.cat([part.batch.weights for part in parts]),
                parts[0].batch.captions + parts[1].batch.captions,
                parts[0].batch.class_captions + parts[1].batch.class_captions,
                parts[0].batch.frames + parts[1].batch.frames,
            ),
            torch.cat([part.noise for part in parts]),
            torch.cat([part.t for part in parts]),
        )
        at_once = denoising_loss(sd1, whole, trainer.texts(whole.batch.captions), 5.0).mean()
        at_once.backward()
    finally:
        trainer.eject()
    assert loss.sum().item() == pytest.approx(at_once.item(), rel=1e-5)
    for mine, parameter in zip(summed, trainer.parameters, strict=True):
        torch.testing.assert_close(mine, parameter.grad, rtol=1e-4, atol=1e-6)


def test_each_accumulated_part_drops_captions_of_its_own() -> None:
    """Parts of one step are one batch in pieces, so chance must differ between them."""
    draws = {tuple(captions_with_dropout(["a"] * 8, 0.5, 0, 3, part)) for part in range(4)}
    assert len(draws) == 4


def test_the_moving_average_is_kept_step_by_step_and_saved(character: Path, sd1: Family) -> None:
    trainer = trainer_for(character, sd1, schedule={"ema": 0.75, "steps": 4, "learning_rate": 0.01})
    wanted = [parameter.detach().clone() for parameter in trainer.parameters]
    try:
        for step in range(3):
            trainer.step(step)
            for mean, parameter in zip(wanted, trainer.parameters, strict=True):
                mean.mul_(0.75).add_(parameter.detach(), alpha=0.25)
        for mine, mean in zip(trainer.average, wanted, strict=True):
            torch.testing.assert_close(mine, mean)
        trainer.use_average()
        for parameter, mean in zip(trainer.parameters, trainer.average, strict=True):
            assert torch.equal(parameter, mean)
    finally:
        trainer.eject()


def test_gradients_are_clipped_to_the_norm(character: Path, sd1: Family) -> None:
    schedule = {"max_grad_norm": 1e-3, "warmup": 0.0, "weight_decay": 0.0}
    trainer = trainer_for(character, sd1, schedule=schedule)
    trainer.update = AfterBackward(torch.optim.SGD(trainer.optimizer.param_groups, lr=1.0), 1e-3)
    before = [parameter.detach().clone() for parameter in trainer.parameters]
    try:
        _, norm = trainer.step(0)
        rate = trainer.optimizer.param_groups[0]["lr"]
    finally:
        trainer.eject()
    moved = [p.detach() - b for p, b in zip(trainer.parameters, before, strict=True)]
    total = torch.stack([change.norm() for change in moved]).norm().item()
    assert norm > 1e-3
    assert total <= rate * 1e-3 * 1.05


def test_about_the_asked_share_of_captions_is_emptied() -> None:
    captions = [f"caption {i}" for i in range(2000)]
    dropped = captions_with_dropout(captions, 0.2, 0, 0)
    assert 0.15 < sum(not caption for caption in dropped) / 2000 < 0.25
    assert {c for c in dropped if c} <= set(captions)
    assert captions_with_dropout(captions, 0.0, 0, 0) == captions
    assert captions_with_dropout(captions, 1.0, 0, 0) == [""] * 2000


def test_noise_depends_on_seed_and_stream_alone(sd1: Family) -> None:
    batch = batch_of(sd1)
    first, again = (draw_noise(sd1, batch, 1, "instance", 5, offset=0.0) for _ in range(2))
    other = draw_noise(sd1, batch, 1, "instance", 6, offset=0.0)
    assert torch.equal(first.noise, again.noise)
    assert torch.equal(first.t, again.t)
    assert not torch.equal(first.noise, other.noise)


def test_noise_offset_adds_a_constant_to_each_channel(sd1: Family) -> None:
    batch = batch_of(sd1)
    plain = draw_noise(sd1, batch, 1, "x", offset=0.0)
    shifted = draw_noise(sd1, batch, 1, "x", offset=0.5)
    shift = shifted.noise - plain.noise
    torch.testing.assert_close(shift, shift[..., :1, :1].expand_as(shift), rtol=0, atol=1e-6)
    assert shift.abs().max() > 0.05


def test_latents_and_text_are_encoded_once_and_read_from_disk(character: Path, sd1: Family) -> None:
    trainer = trainer_for(character, sd1)
    trainer.eject()
    files = {path: path.stat().st_mtime_ns for path in default_folder().rglob("*.safetensors")}
    assert len(files) >= 5
    again = trainer_for(character, sd1)
    again.eject()
    after = {path: path.stat().st_mtime_ns for path in default_folder().rglob("*.safetensors")}
    assert files == {path: when for path, when in after.items() if path in files}
    assert torch.equal(trainer.pictures.batch(0).latents, again.pictures.batch(0).latents)


def test_a_damaged_cache_file_is_made_anew(character: Path, sd1: Family) -> None:
    first = trainer_for(character, sd1)
    first.eject()
    wanted = first.pictures.batch(0).latents
    for path in default_folder().rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:20])
    assert torch.equal(first.pictures.batch(0).latents, wanted)


def test_kept_texts_do_not_pile_up_in_memory(sd1: Family, tmp_path: Path) -> None:
    texts = texts_of(sd1, tmp_path)
    for number in range(TEXTS_IN_MEMORY + 9):
        texts([f"a cat {number}"])
    assert len(texts._kept) == TEXTS_IN_MEMORY
    assert torch.equal(texts(["a cat 0"]).embeds, sd1.encode_text(["a cat 0"]).embeds)


def test_every_picture_is_seen_once_in_an_epoch(character: Path, sd1: Family) -> None:
    trainer = trainer_for(character, sd1, schedule={"batch_size": 1})
    trainer.eject()
    for epoch in range(2):
        seen = [trainer.pictures.batch(5 * epoch + step).captions[0] for step in range(5)]
        assert len(set(seen)) == 5
