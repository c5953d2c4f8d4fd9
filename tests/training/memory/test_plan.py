"""The forecast of memory is true, and a limit chooses modes that keep to it."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from personae.characters.character import Character
from personae.core.cache import default_folder
from personae.core.devices import SHAPES_ONLY
from personae.errors import DoesNotFitError, UsageError
from personae.models.family import Family
from personae.models.load import load_base
from personae.models.text_tower import TextTower
from personae.models.weights.files import stored_parameters
from personae.models.weights.offloaded import offloaded_bytes
from personae.training.events import Planned, Step
from personae.training.memory.counter import peak_allocated
from personae.training.memory.forecast import besides_tensors, needed
from personae.training.memory.passes import _first_tiles
from personae.training.memory.plan import _modes, fitting, loading_precision, with_mode
from personae.training.run_folder import RunFolder
from personae.training.settings import RunConfig
from tiny_world import (
    bare,
    only,
    run,
    run_config,
    shallow_base,
    shallow_pipeline,
    techniques,
    trainer_of,
)

PARTS = {"gradient_checkpointing": "full", "micro_batch": 1}
LEAN = {"update": "in_backward", "optimizer": "adafactor", "weight_precision": "bf16_stochastic"}
SELECTIVE = {"gradient_checkpointing": "selective"}
CASES = [
    *((name, {}) for name in techniques()),
    ("lora", PARTS),
    ("lora", SELECTIVE),
    ("dreambooth", LEAN),
]


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where these tests remember what passes take, which costs seconds to count."""
    return tmp_path_factory.mktemp("counted")


@pytest.fixture(autouse=True)
def _shared_cache(_own_cache: None, counted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSONAE_CACHE", str(counted))


def plain(character: Path, technique: str, **values: Any) -> RunConfig:
    config = run_config(character, technique=technique, acceleration="none", **values)
    return config.resolved(6, shallow_base())


@pytest.mark.parametrize(("technique", "mode"), CASES)
def test_the_forecast_is_what_a_step_allocates(
    technique: str, mode: dict[str, Any], character: Path, shallow: Family
) -> None:
    """States are allocated in the first step, and bytes of the passes are counted in it."""
    config = with_mode(plain(character, technique), mode)
    forecast = needed(config, Character.open(character), shallow, 0)
    assert bare(shallow)
    trainer = trainer_of(config, shallow)
    try:
        trainer.rehearse(0)  # fills the caches
        passes = peak_allocated(lambda: trainer.backward(0))
        trainer.update.forget()
        trainer.step(0)
        states = sum(
            value.numel() * value.element_size()
            for state in trainer.optimizer.state.values()
            for name, value in state.items()
            if hasattr(value, "numel") and name != "step"
        )
        trained = sum(p.numel() * p.element_size() for p in trainer.parameters)
    finally:
        trainer.eject()
    weights = forecast.networks
    measured = weights + trained + states + passes
    assert forecast.trained == trained
    assert forecast.states == pytest.approx(states, rel=0.01)
    assert forecast.total == pytest.approx(measured, rel=0.15)


@pytest.fixture
def base(tmp_path: Path) -> Family:
    shallow_pipeline().save_pretrained(tmp_path / "base")
    return load_base(tmp_path / "base", device="cpu", precision="fp32")


def forecasts(config: RunConfig, character: Path, base: Family, *modes: dict[str, Any]) -> list:
    """Return the forecasts of modes in this process."""
    opened, chosen = Character.open(character), [with_mode(config, mode) for mode in modes]
    return [
        needed(one, opened, base, besides_tensors(base, unload=one.unload)).total for one in chosen
    ]


def test_a_pass_that_cannot_help_is_not_run(character: Path, shallow: Family) -> None:
    config, opened = plain(character, "lora"), Character.open(character)
    whole = needed(config, opened, shallow, 0)
    short = needed(config, opened, shallow, 0, limit=whole.total - whole.passes * 2)
    assert whole.passes > 0 == short.passes
    assert short.networks == whole.networks


def test_a_pass_is_run_once_on_a_machine_for_modes_that_do_not_change_it(
    character: Path, shallow: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERSONAE_CACHE", str(tmp_path))
    config, opened = plain(character, "dreambooth"), Character.open(character)
    kept = default_folder() / "passes"
    whole = needed(config, opened, shallow, 0)
    before = {file: (file.read_bytes(), file.stat().st_ino) for file in kept.iterdir()}
    assert len(before) == 2  # a step, a preview
    smaller = with_mode(config, {"optimizer": "adamw8bit", "unload": True, "seed": 5})
    assert needed(smaller, opened, shallow, 0).passes == whole.passes
    assert all(
        file.stat().st_ino == inode for file, (_, inode) in before.items()
    )  # not written again
    needed(with_mode(config, {"gradient_checkpointing": "full"}), opened, shallow, 0)
    assert len(list(kept.iterdir())) == 4  # with unload, previews are drawn otherwise
    for file in before:
        file.write_text("damaged")
    assert needed(config, opened, shallow, 0).passes == whole.passes
    assert all(file.read_bytes() == content for file, (content, _) in before.items())


@pytest.mark.parametrize("technique", ["lora", "dreambooth"])
def test_a_limit_chooses_the_first_modes_that_fit_and_says_which(
    technique: str, character: Path, base: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("personae.training.memory.forecast.resident_bytes", lambda: 0)
    config = plain(character, technique, base=base.source)
    same = {"unload": True}
    part, lean = ({**same, "gradient_checkpointing": extent} for extent in ("selective", "full"))
    whole, unloaded, partly, checkpointed = forecasts(config, character, base, {}, same, part, lean)
    assert whole > unloaded > partly > checkpointed
    opened = Character.open(character)
    for limit, mode in (
        (whole, {}),
        (whole - 1, same),
        (unloaded - 1, part),
        (partly - 1, lean),
    ):
        asked = config.model_copy(update={"memory": f"{limit}B"})
        chosen, plan = fitting(asked, opened, base)
        assert plan.mode == mode
        assert plan.peak_bytes <= limit
        assert all(key in plan.message for key in mode)
        assert chosen.unload == ("unload" in mode)


def test_what_was_set_by_hand_stays(character: Path) -> None:
    config = plain(
        character,
        "dreambooth",
        schedule={"optimizer": "adamw8bit"},
        settings={"dreambooth": {"weight_precision": "bf16_kahan"}},
    )
    chosen = with_mode(config, list(_modes(config))[-1])
    assert chosen.schedule.optimizer == "adamw8bit"
    assert chosen.settings["dreambooth"]["weight_precision"] == "bf16_kahan"


def test_moving_states_to_the_host_is_planned_only_where_its_memory_is_another(
    character: Path,
) -> None:
    for technique, sense in (("dreambooth", True), ("lora", False)):
        config = plain(character, technique)
        apart = [mode.get("offload") for mode in _modes(config, host_apart=True)]
        assert (True in apart) == sense
        assert not any("offload" in mode for mode in _modes(config))


def test_what_lies_on_the_host_is_not_counted_for_the_device(
    character: Path, shallow: Family
) -> None:
    base, opened = elsewhere(shallow), Character.open(character)
    config = plain(character, "dreambooth")
    here = needed(config, opened, base, 0)
    there = needed(with_mode(config, {"offload": True}), opened, base, 0)
    assert here.trained > 0
    assert (there.trained, there.states) == (0, 0)
    assert there.passes <= here.passes


def test_a_limit_below_the_denoiser_is_kept_by_offloading_its_blocks(
    character: Path, shallow: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("personae.training.memory.plan.loaded_bytes", lambda _: 0)
    base, opened = elsewhere(shallow), Character.open(character)
    config = plain(character, "lora")
    lean = {"unload": True, "gradient_checkpointing": "full"}
    whole = needed(with_mode(config, lean), opened, base, 0)
    part = needed(with_mode(config, {**lean, "block_offload": 1.0}), opened, base, 0)
    away, there = offloaded_bytes(base.denoiser, 1.0)
    assert whole.networks - part.networks == away - there > 0
    asked = config.model_copy(update={"memory": f"{part.total}B"})
    chosen, plan = fitting(asked, opened, base)
    assert chosen.block_offload == plan.mode["block_offload"] == 1.0
    assert plan.peak_bytes == part.total
    assert "blocks of the denoiser lie in the host's memory" in plan.message
    monkeypatch.setattr("personae.training.memory.plan.free_bytes", lambda _: away - 1)
    chosen, _ = fitting(asked, opened, base)  # the host has no room
    assert chosen.block_offload < 1


def test_blocks_are_offloaded_only_where_memory_is_another_and_weights_stay_as_they_are(
    character: Path,
) -> None:
    for technique, sense in (("lora", True), ("dreambooth", False)):
        config = plain(character, technique)
        apart = [mode.get("block_offload") for mode in _modes(config, host_apart=True)]
        assert (1.0 in apart) == sense
        assert not any("block_offload" in mode for mode in _modes(config))


def test_offloading_blocks_on_a_processor_is_refused(
    character: Path, shallow: Family, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"block_offload is 0\.5, but the base computes on the"):
        run(run_config(character, block_offload=0.5), tmp_path / "run", shallow)


def test_every_tile_of_a_forecast_lies_on_the_device_of_the_base(shallow: Family) -> None:
    """Other tiles than the first have shapes alone, and are added to them."""
    decode = _first_tiles(elsewhere(shallow))
    tiles = [decode(torch.zeros(1, 4, 4, 4)) for _ in range(4)]
    assert {(tile.device, tile.shape) for tile in tiles} == {(SHAPES_ONLY, tiles[0].shape)}


def elsewhere(shallow: Family) -> Family:
    """Return a base whose weights are on another device, the one without values."""
    parts = [*shallow.networks.values(), shallow.autoencoder]
    denoiser, encoder, autoencoder = (copy.deepcopy(part).to(SHAPES_ONLY) for part in parts)
    towers = [TextTower(shallow.towers[0].tokenizer, encoder)]
    return dataclasses.replace(
        shallow,
        denoiser=denoiser,
        autoencoder=autoencoder,
        towers=towers,
        device=SHAPES_ONLY,
        overlays={},
    )


def test_a_limit_that_nothing_keeps_is_refused_with_the_least(
    character: Path, shallow: Family
) -> None:
    config = plain(character, "lora", memory="1MB")
    with pytest.raises(DoesNotFitError, match=r"memory is 1MB; the leanest run of lora .* needs"):
        fitting(config, Character.open(character), shallow)


def test_an_amount_of_memory_that_is_none_is_refused(character: Path) -> None:
    with pytest.raises(UsageError, match="'lots' is no amount of memory"):
        plain(character, "lora", memory="lots")


def test_a_run_keeps_its_plan_when_it_is_resumed(
    character: Path, shallow: Family, tmp_path: Path
) -> None:
    config = run_config(character, memory="900GiB")
    asked = iter(range(1))
    first = run(config, tmp_path / "run", shallow, should_stop=lambda: next(asked, None) is None)
    (plan,) = only(first, Planned)
    assert "fits as it is" in plan.message
    assert shallow.acceleration == "none"  # as its owner left it
    planned = RunFolder(tmp_path / "run").config()
    rest = run(config, tmp_path / "run", shallow, resume=True)
    assert not only(rest, Planned)
    assert only(rest, Step)[0].step == 2
    assert RunFolder(tmp_path / "run").config() == planned


def test_the_base_as_it_was_loaded_is_the_least_a_run_needs(
    character: Path, base: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Networks are unloaded only once all of them have been read."""
    monkeypatch.setattr("personae.training.memory.forecast.KERNELS", 0)
    config, opened = plain(character, "lora", base=base.source), Character.open(character)
    lean = with_mode(config, {"unload": True, "gradient_checkpointing": "full"})
    held = needed(lean, opened, base, 0).total + 2**20
    monkeypatch.setattr("personae.training.memory.plan.besides_tensors", lambda *_, **__: 0)
    monkeypatch.setattr("personae.training.memory.forecast.resident_bytes", lambda: held)
    with pytest.raises(DoesNotFitError, match="needs at least"):
        fitting(config.model_copy(update={"memory": f"{held - 1}B"}), opened, base)
    _, plan = fitting(config.model_copy(update={"memory": f"{held}B"}), opened, base)
    assert plan.peak_bytes == held


def test_a_processor_that_computes_in_float32_keeps_a_base_in_bf16_where_a_limit_asks_for_it(
    character: Path, base: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for check in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, check, lambda: False)
    for name, amount in (("resident_bytes", lambda: 0), ("KERNELS", 0)):
        for module in ("plan", "forecast"):
            monkeypatch.setattr(f"personae.training.memory.{module}.{name}", amount)
    config = plain(character, "textual_inversion", base=base.source, precision="auto")
    config = config.model_copy(update={"acceleration": "lean"})
    whole = 4 * stored_parameters(Path(base.source))
    assert loading_precision(config) == "auto"
    assert loading_precision(config.model_copy(update={"memory": f"{whole}B"})) == "auto"
    short = config.model_copy(update={"memory": f"{whole - 1}B"})
    assert loading_precision(short) == "bf16"
    assert loading_precision(short.model_copy(update={"precision": "fp32"})) == "fp32"
    with pytest.raises(DoesNotFitError, match="--precision bf16"):
        fitting(config.model_copy(update={"memory": "1kB"}), Character.open(character), base)
    with monkeypatch.context() as without:  # where torch would multiply number by number
        without.setattr(torch.backends.mkldnn, "is_available", lambda: False)
        assert loading_precision(short) == "bf16"
        assert loading_precision(short.model_copy(update={"acceleration": "none"})) == "auto"
    enough = {"memory": f"{whole - 1}B", "unload": True}
    config = config.model_copy(update=enough)
    events = run(config, tmp_path / "run", None)
    (plan,) = only(events, Planned)
    assert plan.mode["precision"] == "bf16"
    assert "precision = bf16 (the base has two bytes a parameter" in plan.message
    assert RunFolder(tmp_path / "run").config().precision == "bf16"


def test_numbers_of_a_base_that_cannot_be_counted_are_none(tmp_path: Path, base: Family) -> None:
    folder = Path(base.source)
    networks = (*base.networks.values(), base.autoencoder)
    parameters = (p.numel() for each in networks for p in each.parameters())
    assert stored_parameters(folder) == sum(parameters)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"damaged")
    assert stored_parameters(folder) == 0
    described = b'{"weight": 5}'
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(
        len(described).to_bytes(8, "little") + described
    )
    assert stored_parameters(folder) == 0
    (folder / "model_index.json").write_text("[]", encoding="utf-8")
    assert stored_parameters(folder) == 0
    assert stored_parameters(tmp_path / "none") == 0


def test_encoders_leave_memory_before_the_denoiser_comes(
    character: Path, base: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a limit plans for is never in memory together, loading included."""
    together: set[tuple[str, ...]] = set()

    def watched(name: str) -> None:
        plain = getattr(type(base), name)

        def watching(self: Family, *inputs: Any) -> Any:
            parts = {**self.networks, "autoencoder": self.autoencoder}
            here = (name for name, part in parts.items() if filled(part))
            together.add(tuple(sorted(here)))
            return plain(self, *inputs)

        monkeypatch.setattr(type(base), name, watching)

    def filled(network: torch.nn.Module) -> bool:
        return any(p.untyped_storage().nbytes() > p.element_size() for p in network.parameters())

    for name in ("encode_image", "encode_text", "denoise"):
        watched(name)
    config = plain(character, "lora", base=base.source, unload=True)
    run(config, tmp_path / "run", None)
    assert together == {("autoencoder", "text_encoder"), ("denoiser",)}
