"""What is made before a run's first step: techniques, training sets, optimiser, trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from typing import Any

import torch

from personae.characters.character import Character
from personae.characters.reference import Reference
from personae.core.cache import TensorCache, default_folder
from personae.core.registry import lookup
from personae.core.seeds import generator_for
from personae.models.family import Family
from personae.models.weights import sources
from personae.models.weights.unloaded import Unloaded, readable_again
from personae.techniques.technique import Technique
from personae.training.activation_checkpoint import Recomputing
from personae.training.batches import TrainingSet, make_items
from personae.training.events import Preparing
from personae.training.optim.optimizers import OWN_RATES, make_optimizer
from personae.training.optim.updates import make_update
from personae.training.prior import class_references
from personae.training.probe import FrozenProbe
from personae.training.schedule import Schedule
from personae.training.settings import RunConfig
from personae.training.texts import TextSource
from personae.training.trainer import PROBE_PICTURES, Trainer


def build_techniques(config: RunConfig, character: Character, base: Family) -> list[Technique]:
    """Return the techniques of a run, not yet attached."""
    techniques = []
    for name, settings in config.technique_configs().items():
        kind = lookup(Technique, name)
        settings = kind.settings_for(settings, character.name, character.class_noun)
        techniques.append(kind(settings, base, generator_for(config.seed, "start", name)))
    return techniques


def phrase_of(techniques: Sequence[Technique], character: Character) -> str:
    """Return how prompts name the character: by the technique that brings a word of its own."""
    naming = next((each for each in techniques if each.names_character), techniques[0])
    return naming.phrase(character.name, character.class_noun)


def training_set(
    references: Sequence[Reference],
    character: Character,
    phrase: str,
    base: Family,
    cache: TensorCache,
    *,
    schedule: Schedule,
    config: RunConfig,
) -> TrainingSet:
    """Return the training set of `references`, with their captions."""
    captions = [
        (character.caption(each, phrase), character.caption(each, character.class_noun))
        for each in references
    ]
    items = make_items(references, captions, base, schedule)
    return TrainingSet(items, base, cache, schedule=schedule, seed=config.seed)


def unloadable(config: RunConfig, base: Family, parts: dict[str, torch.nn.Module]) -> Unloaded:
    """Return what can leave memory and be read again: `parts`, by component name, or nothing.

    Only where `config.unload` asks for it, and only what lies in a file that is read here.
    """
    if not config.unload:
        return Unloaded([])
    return Unloaded(list(readable_again(sources.local_folder(base.source), parts)))


def denoiser_unloaded(config: RunConfig, base: Family) -> Unloaded:
    """Return the denoiser, to be out of memory for a while, where that is possible and asked."""
    return (
        base.unloaded if base.unloaded.away else unloadable(config, base, base.components.denoiser)
    )


def unload(config: RunConfig, base: Family, texts: TextSource, sets: list[TrainingSet]) -> Unloaded:
    """Unload what the caches make needless, with every caption of `sets` encoded before."""
    parts = base.components.autoencoder
    if config.unload and texts.frozen:
        parts |= base.components.text_encoders
        encode_captions(texts, sets)
    unloaded = unloadable(config, base, parts)
    unloaded.unload()
    return unloaded


def encode_captions(texts: TextSource, sets: list[TrainingSet]) -> None:
    """Fill the cache of encoded captions with those of `sets`, and the empty one."""
    captions = [text for each in sets for item in each.items for text in item.captions]
    for caption in dict.fromkeys(["", *captions]):
        texts([caption])


def parameter_groups(
    techniques: Sequence[Technique], schedule: Schedule, base: Family
) -> list[dict[str, Any]]:
    """Return the optimiser's groups of all techniques, set to training."""
    return [
        group
        for each in techniques
        for group in each.train().parameter_groups(*_rates(each, techniques[0], schedule, base))
    ]


def _rates(
    technique: Technique, first: Technique, schedule: Schedule, base: Family
) -> tuple[float, float]:
    """Return learning rate and decay; further techniques keep their own, scaled alike."""
    own = base.recommended(technique.name, technique.recommended)
    if technique is first or schedule.optimizer in OWN_RATES:
        return schedule.learning_rate, schedule.weight_decay
    leader = base.recommended(first.name, first.recommended)
    return own.learning_rate * schedule.learning_rate / leader.learning_rate, own.weight_decay


def set_up(
    config: RunConfig,
    character: Character,
    base: Family,
    encoded: Callable[[], object] = lambda: None,
) -> Iterator[Preparing | Trainer]:
    """Build the trainer, yielding what is being prepared and at last the trainer itself.

    Args:
        config: the run.
        character: whose pictures are trained on.
        base: loaded; where memory is short, with its denoiser unloaded.
        encoded: called once with the encoders away and the denoiser back, before it computes.
    """
    techniques = build_techniques(config, character, base)
    phrase = phrase_of(techniques, character)
    recommended = base.recommended(techniques[0].name, techniques[0].recommended)
    schedule = config.schedule.resolved(len(character.references), recommended)
    cache = TensorCache(default_folder())
    texts = TextSource(base, cache, frozen=not any(each.trains_text for each in techniques))

    def shown(references: Sequence[Reference]) -> TrainingSet:
        about = (character, phrase, base, cache)
        return training_set(references, *about, schedule=schedule, config=config)

    pictures, prior = shown(character.references), None
    kept = shown(character.held_out) if character.held_out else None
    sets = [each for each in (pictures, kept) if each]
    with denoiser_unloaded(config, base):
        for done, total in chain.from_iterable(each.prepare() for each in sets):
            yield Preparing("encoding pictures", done, total)
        unloaded = unload(config, base, texts, sets)
    with ExitStack() as undo:
        undo.callback(unloaded.reload)  # a run that ends here leaves the base in memory
        encoded()
        if schedule.prior == "images":
            prior = shown((yield from class_references(base, character, schedule, config.seed)))
            if unloaded.away and texts.frozen:
                encode_captions(texts, [prior])
        undo.pop_all()
    held_out = FrozenProbe(base, kept.first(PROBE_PICTURES), config.seed) if kept else None
    recomputing = Recomputing(base.denoiser, schedule.gradient_checkpointing)
    groups = parameter_groups(techniques, schedule, base)
    optimizer = make_optimizer(
        schedule.optimizer, groups, seed=config.seed, lean=schedule.update == "in_backward"
    )
    trained = [p for group in groups for p in group["params"]]
    average = [p.detach().float().clone() for p in trained] if schedule.ema else None
    for each in techniques:
        each.inject()
    yield Trainer(
        config,
        schedule,
        base,
        character,
        techniques,
        phrase,
        texts,
        pictures,
        prior,
        held_out,
        make_update(schedule.update, optimizer, schedule.max_grad_norm),
        average,
        unloaded,
        recomputing,
    )
