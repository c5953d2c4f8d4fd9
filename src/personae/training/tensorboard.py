"""Writes a run's events where TensorBoard reads them, for those who watch runs there."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from personae.core.event import Event
from personae.errors import UsageError
from personae.generation.picture import Picture
from personae.training.events import Preview, Step, Validation


class TensorBoardLog:
    """A sink for events; curves and previews appear under the run folder's `tensorboard`."""

    def __init__(self, run_folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UsageError(
                "tensorboard is not installed; pip install 'personae[tensorboard]', or leave "
                "tensorboard off: every event is in events.jsonl anyway"
            ) from None
        self._writer = SummaryWriter(str(run_folder / "tensorboard"))

    def log(self, event: Event) -> None:
        """Write what can be drawn of `event`."""
        match event:
            case Step():
                self._writer.add_scalar("loss/train", event.loss, event.step)
                self._writer.add_scalar("learning_rate", event.learning_rate, event.step)
                self._writer.add_scalar("grad_norm", event.grad_norm, event.step)
            case Validation():
                self._writer.add_scalar("loss/validation", event.loss, event.step)
                self._writer.add_scalar("loss/validation_base", event.base, event.step)
            case Preview():
                picture = Picture.open(event.path)
                image = np.asarray(picture.image)
                tag = f"preview/{picture.recipe.prompt}"
                self._writer.add_image(tag, image, event.step, dataformats="HWC")
        self._writer.flush()
