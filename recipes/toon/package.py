"""Write what was trained as standard folders: a Stable Diffusion pipeline and the two metric encoders.

python package.py                 from $TOON_WORK into src/personae
python package.py --check FILE    load the folder with plain diffusers, draw a sheet with a fixed seed
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPTokenizer, ResNetModel

from data import SIZE, work_folder
from denoiser import Denoiser, build_text_encoder, build_unet, scheduler
from sheet import PROMPTS, draw, save_sheet

ADVICE = Path(__file__).parent / "personae.toml"
PACKAGE = Path(__file__).parents[2] / "src" / "personae" / "embedded"


def trained_decoder() -> AutoencoderKL:
    """The frozen autoencoder, with the decoder as far as it has been trained since."""
    model = AutoencoderKL.from_pretrained(work_folder() / "autoencoder" / "frozen")
    later = work_folder() / "decoder" / "checkpoint.pt"
    if later.exists():
        model.load_state_dict(torch.load(later, map_location="cpu", weights_only=True)["average"])
    return model


def trained_denoiser(tokenizer: CLIPTokenizer) -> Denoiser:
    """The moving average of the denoiser and text encoder."""
    model = Denoiser(build_unet(), build_text_encoder(tokenizer))
    model.load_state_dict(
        torch.load(work_folder() / "denoiser" / "checkpoint.pt", map_location="cpu", weights_only=True)["average"]
    )
    return model


def name_as_transformers_4(folder: Path) -> None:
    """Give the text encoder's tensors the prefix `text_model.`, which older readers need (and newer ones accept)."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    prefixed = {n if n.startswith("text_model.") else f"text_model.{n}": t for n, t in tensors.items()}
    save_file(prefixed, file, metadata={"format": "pt"})


def forget_where_from(folder: Path) -> None:
    """Leave out of every configuration the folder of this machine that a part was loaded from."""
    for file in folder.glob("*/config.json"):
        config = json.loads(file.read_text())
        config.pop("_name_or_path", None)
        file.write_text(json.dumps(config, indent=2) + "\n")


def load_as_float32(folder: Path) -> None:
    """Let a transformers model load in float32 where no format is asked for, as diffusers loads its parts.

    transformers would follow the format of the file, and the parts would not fit together.
    """
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "float32"}, indent=2) + "\n")


def replace_folder(new: Path, old: Path) -> None:
    """Put `new` where `old` is, so that readers see one or the other."""
    spare = old.with_name(old.name + ".old")
    shutil.rmtree(spare, ignore_errors=True)
    if old.exists():
        old.rename(spare)
    for file in new.rglob("*.safetensors"):
        file.chmod(0o644)
    new.rename(old)
    shutil.rmtree(spare, ignore_errors=True)


def write_pipeline(target: Path) -> None:
    """Write the Stable Diffusion folder in half precision."""
    tokenizer = CLIPTokenizer.from_pretrained(work_folder() / "tokenizer")
    model, part = trained_denoiser(tokenizer), target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    pipeline = StableDiffusionPipeline(
        vae=trained_decoder(),
        text_encoder=model.text_encoder,
        tokenizer=tokenizer,
        unet=model.unet,
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(dtype=torch.float16).save_pretrained(part)
    forget_where_from(part)
    name_as_transformers_4(part / "text_encoder")
    load_as_float32(part / "text_encoder")
    shutil.copy(ADVICE, part)
    tokenizer.backend_tokenizer.model.save(str(part / "tokenizer"))
    replace_folder(part, target)


def write_encoder(name: str, target: Path) -> None:
    """Copy a metric encoder's transformers folder, in half precision."""
    source, part = work_folder() / name / "model", target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(source, part)
    tensors = load_file(part / "model.safetensors")
    halves = {n: t.half() if t.is_floating_point() else t for n, t in tensors.items()}
    save_file(halves, part / "model.safetensors", metadata={"format": "pt"})
    load_as_float32(part)
    replace_folder(part, target)


def check(folder: Path, file: Path) -> None:
    """Load what was packaged as a stranger would, and draw; whatever is not as promised ends the program."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    for encoder, kind in (("toon_identity", ResNetModel), ("toon_clip", CLIPModel)):
        kind.from_pretrained(folder.parents[1] / "encoders" / encoder, local_files_only=True)
    drawn = draw(pipeline, PROMPTS, steps=25, guidance=4.0, seed=0)
    positions = pipeline.tokenizer.model_max_length, pipeline.text_encoder.config.max_position_embeddings
    if drawn.shape != (len(PROMPTS), SIZE, SIZE, 3) or positions != (77, 77):
        raise SystemExit(f"{folder}: draws {drawn.shape} with {positions} positions; expected {SIZE} px and 77")
    save_sheet(drawn, file)
    print(sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6, "MB")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=PACKAGE)
    parser.add_argument("--check", type=Path, metavar="FILE", help="only load and draw; the sheet to write")
    options = parser.parse_args()
    if options.check:
        check(options.to / "bases" / "toon", options.check)
        return
    write_pipeline(options.to / "bases" / "toon")
    for name in ("clip", "identity"):
        if (work_folder() / name / "model").exists():
            write_encoder(name, options.to / "encoders" / f"toon_{name}")


if __name__ == "__main__":
    main()
