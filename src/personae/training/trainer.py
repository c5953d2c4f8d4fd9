"""The live state of a run and its step; what it learnt becomes an artifact."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from personae.artifacts.artifact import Artifact
from personae.artifacts.card import CharacterRecord, TrainingRecord
from personae.characters.character import Character
from personae.core.devices import synchronize
from personae.core.memory import give_back_freed, peak_bytes
from personae.core.seeds import seeded
from personae.models.acceleration.choice import accelerated
from personae.models.acceleration.wide_products import widened
from personae.models.family import Family
from personae.techniques.technique import Technique
from personae.training.activation_checkpoint import Recomputing
from personae.training.batches import TrainingSet
from personae.training.loss import Noised, captions_with_dropout, draw_noise, training_loss
from personae.training.optim.rates import rate_factor, set_rate
from personae.training.optim.updates import UpdateRule
from personae.training.probe import FrozenProbe, PromptProbe
from personae.training.schedule import Schedule
from personae.training.settings import RunConfig
from personae.training.texts import TextSource
from personae.training.trained_on import record_of

PROBE_PICTURES = 4


@dataclass(slots=True)
class Trainer:
    """The parts of a run.

    Attributes:
        config: resolved.
        techniques: in training mode; on `base` between `attach` and `eject`.
        pictures: the training set; prior: class pictures, for prior = images.
        held_out: frozen probe on held-out pictures, or None without any.
        prompts: probe on unlike scenes.
        average: exponential moving averages of the parameters, or None.
        update: applies gradients to what is trained.
        recomputing: drops activations until the backward pass while attached, or None.
        lowered: factor on the learning rate after a rollback.
        seconds: of all steps so far.
        rehearsed: (step, losses, seconds) of a rehearsal whose gradients are there, or None.
        trained_on: what the outcome depends on, see `record_of`.
        fingerprint: of the character when the run set out.
    """

    config: RunConfig
    base: Family
    character: Character
    techniques: list[Technique]
    phrase: str
    texts: TextSource
    pictures: TrainingSet
    prior: TrainingSet | None
    held_out: FrozenProbe | None
    prompts: PromptProbe
    update: UpdateRule
    average: list[torch.Tensor] | None
    recomputing: Recomputing | None = field(default=None)
    lowered: float = 1.0
    seconds: float = field(default=0.0)
    rehearsed: tuple[int, torch.Tensor, float] | None = field(default=None)
    trained_on: dict[str, Any] = field(init=False)
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        """Note what is trained on as it is now; files may change under a long run."""
        sets = {"trained on": self.pictures} | (
            {"a class picture": self.prior} if self.prior else {}
        )
        networks = [self.base.fingerprint, self.pictures.encoder, *self.texts.encoders]
        self.trained_on = record_of(self.config, networks, self.character, sets)
        self.fingerprint = self.character.fingerprint

    @property
    def schedule(self) -> Schedule:
        """Return the settings of the steps."""
        return self.config.schedule

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Return the optimiser."""
        return self.update.optimizer

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """Return all that is trained."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def step(self, step: int) -> tuple[float, float]:
        """Do optimiser step `step` (from 0); return the loss and the gradient norm before clipping.

        The weights are left alone when either is not finite. A step that was rehearsed takes the
        gradients that are there.
        """
        started = time.perf_counter()
        schedule = self.schedule
        factor = rate_factor(
            step, schedule.total_steps, schedule.warmup, schedule.learning_rate_schedule
        )
        set_rate(self.optimizer, factor * self.lowered)
        self.update.begin()
        losses = self._known_losses(step)
        done = self.update.end(self.backward(step) if losses is None else losses)
        if done.moved:
            for technique in self.techniques:
                technique.after_step()
            self._update_average()
        for technique in self.techniques:
            technique.discard_pass()
        synchronize(self.base.device)
        self.seconds += time.perf_counter() - started
        return done.loss, done.norm

    def rehearse(self, step: int, *, keep: bool = False) -> None:
        """Do the passes of step `step` without an update.

        With `keep` their gradients stay where the update allows it, and the step begins with them.
        """
        started = time.perf_counter()
        self._forget_rehearsal()
        losses = self.backward(step)
        synchronize(self.base.device)
        if keep and self.update.keeps_gradients:
            self.rehearsed = step, losses, time.perf_counter() - started
        else:
            self.update.forget()
        for technique in self.techniques:
            technique.discard_pass()

    def _known_losses(self, step: int) -> torch.Tensor | None:
        """Return the losses of step `step` where its gradients are there; others are dropped."""
        if self.rehearsed is None or self.rehearsed[0] != step:
            self._forget_rehearsal()
            return None
        (_, losses, seconds), self.rehearsed = self.rehearsed, None
        self.seconds += seconds
        return losses

    def _forget_rehearsal(self) -> None:
        if self.rehearsed is not None:
            self.update.forget()
            self.rehearsed = None

    def backward(self, step: int) -> torch.Tensor:
        """Accumulate the gradients of a step; return its losses, one of each pass (passes,).

        Nothing that the device computes is read, as reading would wait for it.
        """
        schedule, seed = self.schedule, self.config.seed
        losses = []
        for part in range(schedule.gradient_accumulation):
            noised = self._noised(self.pictures, "instance", step, part)
            prior = self._noised(self.prior, "prior", step, part) if self.prior else None
            captions = captions_with_dropout(
                noised.batch.captions, schedule.caption_dropout, seed, step, part
            )
            with seeded(self.base.device, seed, "dropout", step, part):
                for rows in schedule.micro_batches:
                    loss = training_loss(
                        self.base,
                        self.techniques,
                        noised[rows],
                        self.texts,
                        schedule,
                        captions=captions[rows],
                        prior=prior and prior[rows],
                    )
                    loss = loss * ((rows.stop - rows.start) / schedule.pictures_per_step)
                    losses.append(loss.detach())
                    with widened(self.base):
                        loss.backward()
        return torch.stack(losses)

    def _noised(self, pictures: TrainingSet, stream: str, step: int, part: int) -> Noised:
        batch = pictures.batch(step, part)
        offset = self.schedule.noise_offset
        return draw_noise(self.base, batch, self.config.seed, stream, step, part, offset=offset)

    @torch.no_grad()
    def _update_average(self) -> None:
        kept = self.schedule.ema or 0.0  # without one there are no averages
        for mean, parameter in zip(self.average or [], self.parameters, strict=False):
            mean.lerp_(parameter.float(), 1 - kept)  # float32, as it moves little

    @torch.no_grad()
    def use_average(self) -> None:
        """Put the moving averages in the place of the parameters, if there are any."""
        for parameter, mean in zip(self.parameters, self.average or [], strict=False):
            parameter.copy_(mean)

    def state(self) -> dict[str, Any]:
        """Return all that a resumed run needs; noise and order follow from the seed."""
        return {
            "techniques": {each.name: each.state_dict() for each in self.techniques},
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "lowered": self.lowered,
            "seconds": self.seconds,
            "trained_on": self.trained_on,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state."""
        self._forget_rehearsal()
        for technique in self.techniques:
            technique.load_state_dict(state["techniques"][technique.name])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:  # copied, so that it stays on the device of the parameters
            torch._foreach_copy_(self.average, state["average"])
        self.lowered, self.seconds = state["lowered"], state["seconds"]

    def end_at(self, step: int) -> None:
        """Let `step` be the last one."""
        schedule = self.schedule.model_copy(update={"steps": step})
        self.config = self.config.model_copy(update={"schedule": schedule})

    def attach(self) -> None:
        """Attach the techniques to the base, which then computes what is trained."""
        extent = self.schedule.gradient_checkpointing
        self.recomputing = Recomputing(self.base.denoiser, extent)
        for technique in self.techniques:
            technique.inject()

    def eject(self) -> None:
        """Detach the techniques; but for what is unloaded, the base is what it was."""
        self.update.detach()
        for technique in reversed(self.techniques):
            if technique.injected:
                technique.eject()
        if self.recomputing is not None:
            self.recomputing.end()

    def release(self) -> None:
        """Detach the techniques and free all that was trained, which must be saved by now."""
        self.eject()
        self.optimizer.state.clear()
        for parameter in self.parameters:
            parameter.data = parameter.data.new_empty(0)
        self.average = None
        give_back_freed()


@contextmanager
def at_work(trainer: Trainer) -> Iterator[None]:
    """Attach the techniques for the length of a `with` block, and compute in the quickest ways."""
    base, schedule = trainer.base, trainer.schedule
    side = schedule.resolution or base.resolution
    # The quickest ways first: they are timed on the plain base.
    with accelerated(base, schedule.batch_size, (side, side), training=True):
        try:
            trainer.attach()
            yield
        finally:
            trainer.eject()


def artifact_of(trainer: Trainer) -> Artifact:
    """Return what the run has learnt by now, with its card."""
    character = trainer.character
    return Artifact.of(
        trainer.techniques,
        trainer.base,
        character=CharacterRecord(
            name=character.name,
            class_noun=character.class_noun,
            phrase=trainer.phrase,
            fingerprint=trainer.fingerprint,
        ),
        training=TrainingRecord(
            steps=trainer.schedule.total_steps,
            batch_size=trainer.schedule.batch_size * trainer.schedule.gradient_accumulation,
            pictures=len(character.references),
            seed=trainer.config.seed,
            seconds=round(trainer.seconds, 3),
            peak_bytes=peak_bytes(trainer.base.device),
            parameters=sum(each.parameter_count for each in trainer.techniques),
            device=trainer.base.device.type,
            schedule=trainer.schedule.model_dump(mode="json"),
        ),
    )
