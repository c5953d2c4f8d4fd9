"""The settings of a training run: one frozen object, the same from TOML and from the command line.

A run file has the fields below at its top, a `[schedule]` table, and one table per technique:

    character = "examples/mira"
    technique = "lora"
    [lora]
    rank = 8
    [schedule]
    steps = 300
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, field_validator

from personae.core.config import Config
from personae.core.device_names import check_device, check_precision
from personae.core.units import parse_bytes
from personae.errors import UsageError
from personae.evaluation.settings import JudgingSettings
from personae.techniques.known import known_technique, known_techniques
from personae.techniques.technique_config import TechniqueConfig
from personae.training.schedule import Schedule

if TYPE_CHECKING:
    from personae.models.family import Family


class RunConfig(Config):
    """Everything that decides a training run."""

    character: Path
    """Folder of pictures (or a dataset file of another tool)."""
    base: str = "toon"
    """Base model: embedded name, folder, hub id or checkpoint file."""
    distilled: bool = False
    """Train even on a base that was distilled to draw in few steps: one whose distillation was
    undone looks the same."""
    technique: str = "lora"
    """Technique, or several joined by + to train them together (textual_inversion+lora)."""
    seed: int = Field(default=0, ge=0, lt=2**64)
    """Decides starting values, noise, times and the order of pictures."""
    device: str = "auto"
    """auto, cuda, mps or cpu."""
    precision: str = "auto"
    """Format of the frozen base: auto, bf16, fp16 or fp32; int8 or nf4 keep the denoiser's linear
    layers in 8 or 4 bits (needs torchao; not for dreambooth)."""
    acceleration: str = "auto"
    """Quicker ways to compute the base: auto (measured on this machine), lean (those of them that
    take no memory), none, or names joined by commas."""
    memory: str | None = None
    """Most memory the training may take, such as 6GiB; modes that fit are chosen and named. Judging
    checkpoints (`keep`) may take more."""
    unload: bool = False
    """Keep the autoencoder, and the text encoders where they are not trained, in memory only while
    they are used; needs a base in a local folder."""
    block_offload: float = Field(default=0.0, ge=0, le=1)
    """Share of the denoiser's blocks whose weights lie in the host's memory and are copied to the
    device when they are needed; results are the same. Not on processors, nor for dreambooth."""
    checkpoint_every: int | None = Field(default=None, ge=1)
    """Steps between checkpoints. Default: four in a run."""
    preview_every: int | None = Field(default=None, ge=1)
    """Steps between previews. Default: with each checkpoint."""
    preview_prompts: list[str] = ["{character}", "{character} at the beach"]
    """Prompts of the previews, which are as large as the training's pictures; {character} is the
    one being trained."""
    validate_every: int | None = Field(default=None, ge=1)
    """Steps between validation losses. Default: ten in a run."""
    tensorboard: bool = False
    """Also write curves and previews for TensorBoard, below the run folder."""
    keep: Literal["last", "best", "most_flexible"] = "last"
    """Which checkpoint becomes the artifact. best (highest likeness) and most_flexible (best
    following of prompts within the noise of the best likeness) score each checkpoint on held-out
    pictures."""
    stop_early: bool = True
    """Where checkpoints are scored, end the training when nothing is gained any more, or when
    drift or copies pass a bound."""
    judging: JudgingSettings = JudgingSettings()
    """How checkpoints are scored."""
    schedule: Schedule = Schedule()
    settings: dict[str, dict[str, Any]] = {}
    """Settings of each technique by its name."""

    @classmethod
    def read(cls, values: dict[str, Any], *, where: str = "run") -> Self:
        """Check `values`, in which a table named as a technique holds its settings.

        Raises:
            UsageError: an unknown key, technique or value.
        """
        known = known_techniques()
        plain = dict(values)
        settings = plain.pop("settings", {})
        for name in known:
            own = plain.pop(name, {})
            if not isinstance(own, dict):
                raise UsageError(f"{where}: '{name}' is {own!r}; expected a table of its settings")
            if own:
                settings = {**settings, name: {**settings.get(name, {}), **own}}
        config = cls.parse({**plain, "settings": settings}, where=where)
        for name in [*config.technique_names, *settings]:
            known_technique(name)
        config.technique_configs()
        return config

    @classmethod
    def tables(cls) -> dict[str, type[Config]]:
        """Return the tables of a run file, those of the techniques among them."""
        techniques = known_techniques()
        return {**super().tables(), **{name: kind.Config for name, kind in techniques.items()}}

    @field_validator("preview_prompts")
    @classmethod
    def _one_character(cls, prompts: list[str]) -> list[str]:
        for name in re.findall(r"\{([^{}]*)\}", " ".join(prompts)):
            if name != "character":
                raise UsageError(
                    f"preview_prompts names {{{name}}}; the character that is trained is called "
                    "{character} there, and there is no other"
                )
        return prompts

    @field_validator("device")
    @classmethod
    def _device(cls, device: str) -> str:
        check_device(device)
        return device

    @field_validator("precision")
    @classmethod
    def _precision(cls, precision: str) -> str:
        check_precision(precision)
        return precision

    @field_validator("memory")
    @classmethod
    def _amount(cls, memory: str | None) -> str | None:
        if memory is not None:
            parse_bytes(memory)
        return memory

    @property
    def memory_bytes(self) -> int:
        """Return the most bytes the training may take; without a limit, a number past any."""
        return 2**63 if self.memory is None else round(parse_bytes(self.memory))

    @property
    def technique_names(self) -> list[str]:
        """Return the techniques in the order they are attached."""
        return [name.strip() for name in self.technique.split("+")]

    @property
    def saves_memory(self) -> bool:
        """Say whether networks leave memory, for a limit or because it was asked for."""
        return self.unload or self.memory is not None

    def resolved(self, pictures: int, base: Family) -> Self:
        """Return the settings with every default filled in that depends on base or character.

        Args:
            pictures: how many the character is trained on.
            base: gives its advice for the first technique.
        """
        from personae.core.registry import lookup
        from personae.techniques.technique import Technique  # brings torch, as the base has

        first = lookup(Technique, self.technique_names[0])
        advice = base.recommended(first.name, first.recommended)
        return self.model_copy(update={"schedule": self.schedule.resolved(pictures, advice)})

    def technique_configs(self) -> dict[str, TechniqueConfig]:
        """Return the checked settings of each technique of the run.

        Raises:
            UsageError: a key or value is wrong, or a technique is named twice.
        """
        names = self.technique_names
        if len(set(names)) != len(names):
            raise UsageError(f"technique is '{self.technique}'; name each technique once")
        return {
            name: known_technique(name).Config.parse(self.settings.get(name, {}), where=name)
            for name in names
        }
