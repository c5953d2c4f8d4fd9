"""What is made before a run's first step: techniques, training sets, optimiser, trainer."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from itertools import chain
from typing import Any

from torch import Tensor, nn

from personae.characters.character import Character
from personae.characters.reference import Reference
from personae.core.cache import TensorCache, default_folder
from personae.core.registry import lookup
from personae.core.seeds import generator_for
from personae.models.family import Family
from personae.models.weights import sources
from personae.models.weights.unloaded import Unloaded, readable_again
from personae.techniques.technique import Technique
from personae.training.batches import TrainingSet, make_items
from personae.training.events import Preparing
from personae.training.optim.optimizers import OWN_RATES, make_optimizer
from personae.training.optim.updates import UpdateRule, make_update
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


def unloadable(config: RunConfig, base: Family, parts: dict[str, nn.Module]) -> Unloaded:
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
    config: RunConfig, character: Character, base: Family
) -> Generator[Preparing, None, Trainer]:
    """Tell what is being prepared and return the trainer, with nothing attached to `base` yet.

    Args:
        config: the run.
        character: whose pictures are trained on.
        base: loaded; where memory is short, with its denoiser unloaded.
    """
    techniques = build_techniques(config, character, base)
    phrase = phrase_of(techniques, character)
    leader = techniques[0]
    recommended = base.recommended(leader.name, leader.recommended)
    schedule = config.schedule.resolved(len(character.references), recommended)
    cache = TensorCache(default_folder())
    texts = TextSource(base, cache, frozen=not any(each.trains_text for each in techniques))

    def shown(references: Sequence[Reference]) -> TrainingSet:
        about = (character, phrase, base, cache)
        return training_set(references, *about, schedule=schedule, config=config)

    pictures = shown(character.references)
    kept = shown(character.held_out) if character.held_out else None
    unloaded = yield from _encoded(config, base, texts, [pictures, *([kept] if kept else [])])
    prior = None
    try:
        if schedule.prior == "images":
            prior = shown((yield from class_references(base, character, schedule, config.seed)))
            if unloaded.away and texts.frozen:
                encode_captions(texts, [prior])
        held_out = FrozenProbe(base, kept.first(PROBE_PICTURES), config.seed) if kept else None
    except BaseException:
        unloaded.reload()  # a run that ends here leaves the base in memory
        raise
    update, average = _updating(techniques, schedule, base, config.seed)
    about = (config, schedule, base, character, techniques, phrase)
    return Trainer(*about, texts, pictures, prior, held_out, update, average, unloaded)


def _encoded(
    config: RunConfig, base: Family, texts: TextSource, sets: list[TrainingSet]
) -> Generator[Preparing, None, Unloaded]:
    """Fill the cache with `sets` while the denoiser is out of memory; return what is unloaded."""
    with denoiser_unloaded(config, base):
        for done, total in chain.from_iterable(each.prepare() for each in sets):
            yield Preparing("encoding pictures", done, total)
        return unload(config, base, texts, sets)


def _updating(
    techniques: Sequence[Technique], schedule: Schedule, base: Family, seed: int
) -> tuple[UpdateRule, list[Tensor] | None]:
    """Return what applies gradients, and the moving averages of what is trained, if any."""
    groups = parameter_groups(techniques, schedule, base)
    lean = schedule.update == "in_backward"
    optimizer = make_optimizer(schedule.optimizer, groups, seed=seed, lean=lean)
    trained = [p for group in groups for p in group["params"]]
    average = [p.detach().float().clone() for p in trained] if schedule.ema else None
    return make_update(schedule.update, optimizer, schedule.max_grad_norm), average
