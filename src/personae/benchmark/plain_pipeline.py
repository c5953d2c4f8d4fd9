"""diffusers' own pipeline with what it can load of a technique."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from safetensors.torch import load_file, save_file

from personae.benchmark.jobs import Job
from personae.benchmark.plain_loop import LORA_LAYERS, TOKENS
from personae.core.devices import PRECISIONS, pick_device, synchronize
from personae.core.seeds import generator_for
from personae.models.weights.pipelines import in_format

REPEATS = 3


class PlainDrawing:
    """A pipeline, and the file of an untrained technique for it."""

    def __init__(self, job: Job, folder: Path) -> None:
        self.job, self.folder = job, folder
        self.device = pick_device(job.device)
        self.pipe = StableDiffusionPipeline.from_pretrained(
            job.base,
            **in_format(PRECISIONS[job.precision]),
            safety_checker=None,
            local_files_only=True,
        ).to(self.device)
        self.pipe.set_progress_bar_config(disable=True)
        self.pipe.scheduler = DPMSolverMultistepScheduler.from_config(self.pipe.scheduler.config)
        self.word = ""

    def handling(self) -> dict[str, float]:
        """Return the seconds of loading from a file and of taking out and putting in again.

        Empty where diffusers can load nothing of the technique. What is loaded stays.
        """
        match self.job.technique:
            case "lora":
                return self._costs(self._lora_file(), self._load_lora, self._unload_lora)
            case "textual_inversion":
                return self._costs(self._words_file(), self._load_words, self._unload_words)
            case _:
                return {}

    def picture(self, seed: int, steps: int | None = None) -> None:
        """Draw one picture with guidance."""
        side = {"width": self.job.resolution, "height": self.job.resolution}
        self.pipe(
            f"a {self.word} woman at the beach",
            num_inference_steps=steps or self.job.picture_steps,
            guidance_scale=5.0,
            generator=generator_for(seed, "noise"),
            **side,
        )
        synchronize(self.device)

    def _costs(
        self, file: Path, load: Callable[[Any], None], unload: Callable[[], None]
    ) -> dict[str, float]:
        loads, switches = [], []

        def switch(held: object) -> None:
            unload()
            load(held)

        for _ in range(REPEATS):
            loads.append(self._seconds(lambda: load(file)))
            held = load_file(file)
            switches.append(self._seconds(partial(switch, held)))
            unload()
        load(file)
        return {"load_seconds": median(loads), "switch_seconds": median(switches)}

    def _seconds(self, action: Callable[[], object]) -> float:
        before = self.job.now()
        action()
        synchronize(self.device)
        return self.job.now() - before

    def _lora_file(self) -> Path:
        from peft import LoraConfig
        from peft.utils import get_peft_model_state_dict

        rank, unet = self.job.rank, self.pipe.unet
        unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=LORA_LAYERS))
        layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
        StableDiffusionPipeline.save_lora_weights(self.folder, unet_lora_layers=layers)
        self.pipe.unload_lora_weights()
        return next(self.folder.glob("*.safetensors"))

    def _load_lora(self, source: Path | dict[str, Any]) -> None:
        self.pipe.load_lora_weights(source, adapter_name="mira", local_files_only=True)

    def _unload_lora(self) -> None:
        self.pipe.unload_lora_weights()

    def _words_file(self) -> Path:
        self.word = "<plain>"
        width = self.pipe.text_encoder.get_input_embeddings().weight.shape[1]
        vectors = torch.randn(len(TOKENS), width, generator=generator_for(0, "words")) * 0.01
        path = self.folder / "words.safetensors"
        save_file({self.word: vectors}, path)
        return path

    def _load_words(self, source: Path | dict[str, Any]) -> None:
        self.pipe.load_textual_inversion(source, token=self.word, local_files_only=True)

    def _unload_words(self) -> None:
        self.pipe.unload_textual_inversion()  # all: a word of several vectors has many tokens
