"""How other tools put the settings of a picture into words: A1111's text and InvokeAI's JSON.

Other tools say less than a recipe does, so that what they wrote is read back as `Settings` to draw
something like it, not the same bytes.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from personae.generation.prompts import literal

LONGEST_TEXT = 2**20

# Our samplers in the words of A1111 and InvokeAI. A1111 reads Karras spacing in the name, too.
SAMPLERS = {
    "ddim": ("DDIM", "ddim"),
    "euler": ("Euler", "euler"),
    "euler_karras": ("Euler Karras", "euler_k"),
    "euler_a": ("Euler a", "euler_a"),
    "dpm++2m": ("DPM++ 2M", "dpmpp_2m"),
    "dpm++2m_karras": ("DPM++ 2M Karras", "dpmpp_2m_k"),
    "dpm++2m_sde": ("DPM++ 2M SDE", "dpmpp_2m_sde"),
    "dpm++2m_sde_karras": ("DPM++ 2M SDE Karras", "dpmpp_2m_sde_k"),
    "unipc": ("UniPC", "unipc"),
    "unipc_karras": ("UniPC Karras", "unipc_k"),
}

LONGEST_INFOTEXT = 2**16
# Names are bounded, so that a line without a colon takes time in its length, not in its square.
_PAIR = re.compile(r'\s{0,9}(\w[\w \-/]{1,63}):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


@dataclass(frozen=True, slots=True)
class Settings:
    """How a picture was drawn, as far as a tool says.

    Attributes:
        prompt, negative_prompt: as written, with the tool's own marks.
        seed, steps, guidance_scale, width, height: None where the tool is silent.
        sampler: by our name if we have it, else by the tool's.
        model: name of the base.
        extra: everything else, by the tool's names.
    """

    prompt: str
    negative_prompt: str = ""
    seed: int | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    width: int | None = None
    height: int | None = None
    sampler: str | None = None
    model: str | None = None
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def ours(self) -> bool:
        """Say whether personae wrote them, so that braces name members of a cast."""
        return self.extra.get("Version", "").startswith("personae")

    @property
    def as_prompt(self) -> str:
        """Return the prompt in our words: braces of other tools are braces."""
        return self.prompt if self.ours else literal(self.prompt)

    def sampling(self) -> dict[str, Any]:
        """Return the fields that `Sampling` has, without those that are unknown."""
        wanted = ("steps", "guidance_scale", "width", "height", "sampler")
        known = {name: getattr(self, name) for name in wanted if getattr(self, name) is not None}
        if known.get("sampler") not in (None, *SAMPLERS):
            del known["sampler"]
        negative = self.negative_prompt if self.ours else literal(self.negative_prompt)
        return known | {"negative_prompt": negative}


def to_infotext(settings: Settings) -> str:
    """Return A1111's text: prompt, negative prompt, and one line of pairs.

    The line of the negative prompt is always there: ComfyUI reads nothing without it.
    """
    named = {
        "Steps": settings.steps,
        "Sampler": SAMPLERS.get(settings.sampler or "", (settings.sampler,))[0],
        "CFG scale": None if settings.guidance_scale is None else f"{settings.guidance_scale:g}",
        "Seed": settings.seed,
        "Size": f"{settings.width}x{settings.height}" if settings.width else None,
        "Model": settings.model,
        **settings.extra,
    }
    pairs = [f"{name}: {_quoted(value)}" for name, value in named.items() if value is not None]
    negative = " ".join(settings.negative_prompt.split())
    return f"{settings.prompt}\nNegative prompt: {negative}\n{', '.join(pairs)}"


def from_infotext(text: str) -> Settings | None:
    """Return what A1111's text says, or None if it is no such text (or longer than any)."""
    if len(text) > LONGEST_INFOTEXT:
        return None
    lines = text.strip().split("\n")
    pairs = dict(_PAIR.findall(lines[-1]))
    if len(pairs) < 3 or "Steps" not in pairs:
        return None
    values = {name: _unquoted(value) for name, value in pairs.items()}
    prompt, negative = _split_prompts(lines[:-1])
    sampler = values.pop("Sampler", None)
    if sampler and values.get("Schedule type") == "Karras" and not sampler.endswith("Karras"):
        sampler = f"{sampler} Karras"
    size = re.fullmatch(r"(\d{1,5})x(\d{1,5})", values.pop("Size", ""))
    return Settings(
        prompt=prompt,
        negative_prompt=negative,
        seed=_whole(values.pop("Seed", None)),
        steps=_whole(values.pop("Steps")),
        guidance_scale=_number(values.pop("CFG scale", None)),
        width=int(size[1]) if size else None,
        height=int(size[2]) if size else None,
        sampler=_our_sampler(sampler, 0),
        model=values.pop("Model", None),
        extra=values,
    )


def to_invokeai(settings: Settings) -> str:
    """Return InvokeAI's JSON."""
    content = {
        "generation_mode": "txt2img",
        "positive_prompt": settings.prompt,
        "negative_prompt": settings.negative_prompt,
        "width": settings.width,
        "height": settings.height,
        "seed": settings.seed,
        "cfg_scale": settings.guidance_scale,
        "steps": settings.steps,
        "scheduler": SAMPLERS.get(settings.sampler or "", ("", settings.sampler))[1],
    }
    known = {name: value for name, value in content.items() if value is not None}
    return json.dumps(known, ensure_ascii=False)


def from_invokeai(text: str) -> Settings | None:
    """Return what InvokeAI's JSON says, or None if it is no such JSON."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or not isinstance(content.get("positive_prompt"), str):
        return None
    model = content.get("model")
    negative = content.get("negative_prompt")
    return Settings(
        prompt=content["positive_prompt"],
        negative_prompt=negative if isinstance(negative, str) else "",
        seed=_whole(content.get("seed")),
        steps=_whole(content.get("steps")),
        guidance_scale=_number(content.get("cfg_scale")),
        width=_whole(content.get("width")),
        height=_whole(content.get("height")),
        sampler=_our_sampler(content.get("scheduler"), 1),
        model=str(model["name"]) if isinstance(model, dict) and "name" in model else None,
    )


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if re.search(r"[,\n:]", text) else text


def _unquoted(text: str) -> str:
    try:
        return str(json.loads(text)) if text.startswith('"') else text.strip()
    except ValueError:
        return text


def _split_prompts(lines: list[str]) -> tuple[str, str]:
    mark = "Negative prompt:"
    at = next((i for i, line in enumerate(lines) if line.startswith(mark)), len(lines))
    negative = [line.removeprefix(mark) if i == 0 else line for i, line in enumerate(lines[at:])]
    return "\n".join(lines[:at]).strip(), "\n".join(negative).strip()


def _our_sampler(name: object, tool: int) -> str | None:
    if not isinstance(name, str) or not name:
        return None
    return next((ours for ours, theirs in SAMPLERS.items() if theirs[tool] == name), name)


def _whole(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
