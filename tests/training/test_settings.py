"""Run settings: defaults from the technique, tables by its name, and the way there and back."""

from __future__ import annotations

from pathlib import Path

import pytest

from personae.core.config import to_toml
from personae.errors import UsageError
from personae.models.recommended import Recommended
from personae.training.run_folder import RunFolder
from personae.training.schedule import Schedule
from personae.training.settings import RunConfig

USUAL = Recommended(
    learning_rate=1e-4,
    weight_decay=0.01,
    steps_per_picture=100,
    min_steps=400,
    max_steps=1200,
    prior="prediction",
)


@pytest.mark.parametrize(
    ("pictures", "batch", "accumulation", "steps"),
    [
        (1, 1, 1, 400),
        (8, 1, 1, 800),
        (8, 4, 1, 200),
        (8, 4, 2, 100),
        (50, 1, 1, 1200),
        (7, 8, 1, 88),
    ],
)
def test_steps_come_from_the_number_of_pictures(
    pictures: int, batch: int, accumulation: int, steps: int
) -> None:
    schedule = Schedule(batch_size=batch, gradient_accumulation=accumulation)
    assert schedule.resolved(pictures, USUAL).steps == steps


def test_what_is_said_stays_and_the_rest_comes_from_the_technique() -> None:
    filled = Schedule().resolved(8, USUAL)
    assert (filled.learning_rate, filled.weight_decay, filled.prior) == (1e-4, 0.01, "prediction")
    assert filled.prior_every == 1
    said = Schedule(steps=3, learning_rate=0.5, weight_decay=0.0, prior="none", prior_every=2)
    assert said.resolved(8, USUAL) == said


def test_an_optimiser_that_finds_its_rate_starts_from_one() -> None:
    assert Schedule(optimizer="prodigy").resolved(8, USUAL).learning_rate == 1.0
    assert Schedule(optimizer="prodigy", learning_rate=0.5).resolved(8, USUAL).learning_rate == 0.5


def test_min_snr_is_switched_off_by_its_own_switch() -> None:
    assert Schedule().gamma == 5.0
    assert Schedule(min_snr=False).gamma is None


def test_settings_go_to_the_run_folder_and_back_whole(tmp_path: Path) -> None:
    config = RunConfig.read(
        {
            "character": "pictures of mira",
            "technique": "textual_inversion+lora",
            "lora": {"rank": 3, "alpha": 1.5},
            "textual_inversion": {"num_vectors": 2},
            "schedule": {"steps": 7, "prior": "images", "min_snr": False, "flip": True},
            "preview_prompts": ['"{character}"', "näher"],
        }
    )
    folder = RunFolder(tmp_path / "run")
    folder.begin(config)
    assert folder.config() == config


def test_a_value_that_toml_cannot_hold_is_no_value_of_a_setting() -> None:
    """None is left out of TOML, so that it must mean the default, or a run could not resume."""
    for name, field in {**Schedule.model_fields, **RunConfig.model_fields}.items():
        allows_none = "None" in str(field.annotation)
        assert not allows_none or field.default is None, name


def test_a_table_named_as_a_technique_holds_its_settings() -> None:
    config = RunConfig.read({"character": "x", "lora": {"rank": 3}})
    assert config.technique_configs()["lora"].rank == 3
    assert "rank" in to_toml(config)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "'character' is missing"),
        ({"technique": "lorra"}, "'lorra' is not one of the techniques"),
        ({"technique": "lora+lora"}, "name each technique once"),
        ({"technique": ""}, "'' is not one of the techniques"),
        ({"lora": {"rnk": 3}}, "lora: unknown key 'rnk'. Did you mean 'rank'?"),
        ({"lora": {"rank": 0}}, "lora: 'rank' is 0; "),
        ({"lora": 3}, "'lora' is 3; expected a table of its settings"),
        ({"settings": {"lorra": {}}}, "'lorra' is not one of the techniques"),
        ({"settings": 3}, "'settings' is 3; "),
        ({"schedule": {"step": 3}}, "unknown key 'schedule.step'. Did you mean 'steps'?"),
        ({"schedule": {"learning_rate": -1}}, "'schedule.learning_rate' is -1; "),
        ({"schedule": {"warmup": 1.0}}, "'schedule.warmup' is 1.0; "),
        ({"learning_rate": 1}, "'learning_rate'. Did you mean 'schedule.learning_rate'?"),
        ({"lroa": {"rank": 3}}, "unknown key 'lroa'. Did you mean 'lora'?"),
        ({"rank": 3}, "unknown key 'rank'. Did you mean 'lora.rank'?"),
        ({"schedule": {"prior": "image"}}, "or 'prediction'. Did you mean 'images'?"),
        ({"schedule": {"optimizer": "adamv"}}, "'adamv'; it must be one of"),
        ({"preview_prompts": ["{mira}"]}, "preview_prompts names {mira}; the character"),
        ({"seed": -1}, "'seed' is -1; "),
    ],
)
def test_wrong_run_settings_are_refused_in_one_line(values: dict, words: str) -> None:
    given = values if not values else {"character": "x", **values}
    with pytest.raises(UsageError) as error:
        RunConfig.read(given)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_run_files_that_switch_checkpointing_on_and_off_are_read_as_before() -> None:
    extents = [
        Schedule.parse({"gradient_checkpointing": value}, where="schedule").gradient_checkpointing
        for value in (True, False, "selective")
    ]
    assert extents == ["full", "none", "selective"]
    with pytest.raises(UsageError, match="gradient_checkpointing"):
        Schedule.parse({"gradient_checkpointing": "most"}, where="schedule")
