"""What a diffusion's denoiser predicts, and how noisy its noisiest step is: who says so, and where.

diffusers keeps both in a scheduler's settings. Single files have none; other tools mark them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from diffusers import DDIMScheduler

from personae.core.config import Config
from personae.core.tensor_header import TensorHeader, read_tensor_header
from personae.errors import BaseError
from personae.models.noise_path import Diffusion

V_KEY, ZERO_SNR_KEY = "v_pred", "ztsnr"
"""Names of tensors without values that ComfyUI and Forge look for in a single file."""

_TRUE = "true"
_TYPES: Mapping[str, Literal["epsilon", "v_prediction"]] = {
    "epsilon": "epsilon",
    "eps": "epsilon",
    "v": "v_prediction",
    "v_prediction": "v_prediction",
    "v-prediction": "v_prediction",
}


class Prediction(Config):
    """What is said of a base's prediction; the table `[base]` of a `personae.toml`."""

    prediction_type: Literal["epsilon", "v_prediction"] | None = None
    """What the denoiser predicts: epsilon, the noise, or v_prediction (arXiv:2202.00512)."""
    zero_terminal_snr: bool | None = None
    """Whether the noisiest step is noise alone (arXiv:2305.08891)."""

    def over(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of a scheduler of diffusers with what is said here in place."""
        said = {
            "prediction_type": self.prediction_type,
            "rescale_betas_zero_snr": self.zero_terminal_snr,
        }
        return {**config, **{key: value for key, value in said.items() if value is not None}}


def marked(path: Path) -> Prediction:
    """Return what a single file says of itself, by the tensors it holds and by its metadata.

    ComfyUI goes by the names of tensors and writes `modelspec.predict_key`. ModelSpec 1.0.1 has
    `modelspec.prediction_type`; the keys that begin with `ss_` are those of kohya's scripts.
    """
    header = read_tensor_header(path)
    zero = ZERO_SNR_KEY in header.tensors or _true(header, "ss_zero_terminal_snr")
    return Prediction(prediction_type=_type(header), zero_terminal_snr=zero or None)


def _type(header: TensorHeader) -> Literal["epsilon", "v_prediction"] | None:
    if V_KEY in header.tensors or _true(header, "ss_v_parameterization"):
        return "v_prediction"
    for key in ("modelspec.prediction_type", "modelspec.predict_key"):
        found = _TYPES.get(header.metadata.get(key, "").strip().lower())
        if found is not None:
            return found
    return None


def _true(header: TensorHeader, key: str) -> bool:
    return header.metadata.get(key, "").strip().lower() == _TRUE


def diffusion_of(config: Mapping[str, Any], source: str) -> tuple[Diffusion, dict[str, Any]]:
    """Return the noise path of a scheduler's settings, and the settings to draw with.

    Where the noisiest step is noise alone, drawing begins there: of the three spacings of diffusers
    `leading` does not (arXiv:2305.08891, section 3.3), and `trailing` takes its place.

    Raises:
        BaseError: the network predicts something else, or noise from a step that is noise alone.
    """
    kind = config.get("prediction_type", "epsilon")
    if kind not in ("epsilon", "v_prediction") or "beta_start" not in config:
        how = "" if "beta_start" in config else " on noise levels of its own, without betas"
        raise BaseError(
            f"base '{source}' predicts '{kind}'{how}; only epsilon and v_prediction of a discrete "
            "diffusion are trained here"
        )
    settings = dict(config)
    if config.get("rescale_betas_zero_snr"):
        if kind == "epsilon":
            raise BaseError(
                f"base '{source}' is said to predict epsilon and to end in noise alone (zero "
                "terminal SNR), where the noise is known and the picture cannot be found; set "
                'prediction_type = "v_prediction" or zero_terminal_snr = false in its personae.toml'
            )
        if config.get("timestep_spacing", "leading") == "leading":
            settings["timestep_spacing"] = "trailing"
    # One class for all: the others put a small number in the place of the last step's zero.
    alphas = DDIMScheduler.from_config(config).alphas_cumprod
    return Diffusion(alphas, kind), settings
