"""The contract every technique keeps, and nothing about any single one.

A technique is a torch module that holds only what it learns. It is built from the shapes of a
base, attaches itself with hooks (`inject`) and detaches without a trace (`eject`):

- output is equal bit for bit before training, and again after `eject`;
- strength 0 is the base, strength 1 is as trained;
- saved and loaded, it draws the same;
- any two stack; a pair that cannot work raises `UnsupportedError` in words.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from personae.core.devices import SHAPES_ONLY
from personae.core.registry import PlugIn
from personae.errors import UnsupportedError, UsageError
from personae.models.family import Family
from personae.models.recommended import Recommended
from personae.techniques.technique_config import TechniqueConfig


@dataclass(frozen=True, slots=True)
class Leaner:
    """A setting with which a technique takes less memory while it is trained.

    Attributes:
        setting: a field of the technique's `Config`.
        value: what it is set to.
        reason: why that takes less, in words that end a sentence.
        to_host: it moves memory from the device to the host, and so helps only where they differ.
    """

    setting: str
    value: Any
    reason: str
    to_host: bool = False


class Technique(nn.Module, PlugIn, ABC):
    """What is learnt about a character, attached to a base.

    A class sets `name`, `title`, `source` (the paper), `Config` and `recommended`. `per_row` says
    that rows of a batch can have strengths of their own, `names_character` that it brings the
    word a prompt names the character by, `stored_dtype` in which format it is saved, `holder` the
    name of the module dict or list with what is learnt, if there is one. `changes_weights`
    says that it lays deltas over the base's own weights, which must then be whole and on the
    device. `leaner` holds settings
    that take less memory, the gentlest first: under a limit of memory those that move to the host
    are tried before the optimiser is another one, all others after. `keeps_prompts` says in words
    which of its settings let a picture follow its prompt more, if any.

    Attributes:
        config: its settings.
        strength: 0 = the base, 1 = as trained; a tensor (b,) gives each row of a batch its own
            where `per_row` is true.
    """

    package: ClassVar[str] = "personae.techniques"
    group: ClassVar[str] = "personae.techniques"
    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    Config: ClassVar[type[TechniqueConfig]]
    recommended: ClassVar[Recommended]
    per_row: ClassVar[bool] = True
    names_character: ClassVar[bool] = False
    stored_dtype: ClassVar[torch.dtype] = torch.float16
    holder: ClassVar[str] = ""
    changes_weights: ClassVar[bool] = False
    leaner: ClassVar[tuple[Leaner, ...]] = ()
    keeps_prompts: ClassVar[str] = ""

    def __init__(
        self, config: TechniqueConfig, base: Family, generator: torch.Generator | None
    ) -> None:
        """Allocate from the shapes of `base`, which is not touched.

        Args:
            config: an instance of the class's own `Config`.
            base: gives shapes, layer names and vocabulary.
            generator: draws the starting values; None = there are none, and nothing is allocated
                that `hold` replaces.

        Raises:
            UnsupportedError: the technique cannot work on this base.
        """
        super().__init__()
        self.config, self.base = config, _Reference(base)
        self.strength: float | Tensor = 1.0
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    @classmethod
    def tensor_name(cls, *path: str) -> str:
        """Return how artifacts call a tensor of what is learnt: technique, holder and `path`.

        For DreamBooth and the path `denoiser`, `conv_in.weight` it is
        `dreambooth.deltas.denoiser.conv_in.weight`.
        """
        return ".".join((cls.name, cls.holder, *path) if cls.holder else (cls.name, *path))

    @classmethod
    def learnt_in(cls, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return {path: value} of what this technique learnt, out of the tensors of an artifact."""
        start = cls.tensor_name("")
        return {
            name.removeprefix(start): value
            for name, value in tensors.items()
            if name.startswith(start)
        }

    @property
    def trains_text(self) -> bool:
        """Say whether the text encoding depends on what is learnt, so that it cannot be cached."""
        return False

    @abstractmethod
    def inject(self) -> Self:
        """Attach to the base; before training its output stays equal bit for bit."""

    def eject(self) -> None:
        """Detach; the base is bit for bit what it was."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def hold(self, values: Mapping[str, Tensor]) -> None:
        """Take what was learnt, to draw with it; what has the right format is shared, not copied.

        Args:
            values: every entry of `state_dict` by name, as stored.
        """
        own = self.state_dict()
        self._put(
            {name: value.to(self.base.device, own[name].dtype) for name, value in values.items()}
        )

    def _put(self, values: Mapping[str, Tensor]) -> None:
        """Let `values` be its parameters and buffers; torch searches all of them for each."""
        modules = dict(self.named_modules())
        for name, value in values.items():
            prefix, _, leaf = name.rpartition(".")
            owner = modules[prefix]
            if leaf in owner._parameters:
                trained = owner._parameters[leaf].requires_grad
                owner._parameters[leaf] = nn.Parameter(value, requires_grad=trained)
            else:
                owner._buffers[leaf] = value

    @classmethod
    def settings_for(cls, config: TechniqueConfig, name: str, class_noun: str) -> TechniqueConfig:
        """Return the settings with what depends on the character filled in."""
        return config

    def phrase(self, name: str, class_noun: str) -> str:
        """Return how a prompt names the character after training with this technique.

        A plain rare word before the class noun, as in DreamBooth (arXiv:2208.12242, section 3.2).
        """
        return f"{name} {class_noun}".strip()

    def rename_word(self, word: str) -> None:
        """Let `word` name the character from now on; only where `names_character`, not attached.

        Raises:
            UnsupportedError: the technique brings no word of its own.
        """
        raise UnsupportedError(f"{self.title} brings no word, so none can be given to it")

    def parameter_groups(self, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
        """Return the optimiser's groups: `params`, `lr`, `weight_decay`."""
        trained = list(self.parameters())
        return [{"params": trained, "lr": learning_rate, "weight_decay": weight_decay}]

    def after_step(self) -> None:
        """Put what was just updated back inside its bounds, if it has any."""

    def discard_pass(self) -> None:
        """Forget what was noted in a training pass that no update follows."""

    @torch.no_grad()
    def round_as_stored(self) -> None:
        """Round parameters to `stored_dtype`, so that memory equals the file to come."""
        for parameter in self.parameters():
            parameter.copy_(parameter.to(self.stored_dtype))

    def attach(self, handle: torch.utils.hooks.RemovableHandle) -> None:
        """Keep a hook's handle for `eject`."""
        self._handles.append(handle)

    @property
    def injected(self) -> bool:
        """Say whether it is attached now."""
        return bool(self._handles)

    @property
    def parameter_count(self) -> int:
        """How many numbers are learnt."""
        return sum(parameter.numel() for parameter in self.parameters())

    def add_scaled(
        self, output: Tensor, inputs: Tensor, change: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Return `output + strength * change(inputs)`, row by row where strengths differ.

        Args:
            output: (b, ...) what the base computed.
            inputs: (b, ...) what `change` reads.
            change: maps inputs to the shape of output.
        """
        if not isinstance(self.strength, Tensor):
            if self.strength == 0:
                return output
            change_now = change(inputs)
            if self.strength != 1:
                change_now = change_now * self.strength
            return output + change_now.to(output.dtype)
        if len(self.strength) != len(output):
            raise UsageError(
                f"{self.name} has strengths for {len(self.strength)} rows, but the batch has "
                f"{len(output)}"
            )
        rows = self.strength.nonzero().flatten().to(output.device)
        if len(rows) == 0:
            return output
        shape = (-1,) + (1,) * (output.dim() - 1)
        scale = self.strength.to(output.device)[rows].reshape(shape)
        changed = output[rows] + (change(inputs[rows]) * scale).to(output.dtype)
        return output.index_copy(0, rows, changed)


class _Reference:
    """Holds the base without registering its networks as parts of the technique."""

    def __init__(self, base: Family) -> None:
        self.family = base

    def __getattr__(self, name: str) -> Any:
        return getattr(self.family, name)


def allocated_on(base: Family, generator: torch.Generator | None) -> torch.device:
    """Return where a technique's tensors begin: on shapes alone where `hold` replaces them."""
    return SHAPES_ONLY if generator is None else base.device


def key_of(layer: str) -> str:
    """Return a layer name that torch accepts as a module key; `layer_of` undoes it."""
    return layer.replace(".", "/")


def layer_of(module_key: str) -> str:
    """Return the layer name of a module key."""
    return module_key.replace("/", ".")
