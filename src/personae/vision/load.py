"""Networks that turn pictures (and texts) into vectors whose nearness has a meaning.

One file each, found by `registry.discover`. `load_encoder` finds one by name, hub id or folder.
"""

from __future__ import annotations

from personae.core import registry
from personae.core.devices import pick_device
from personae.errors import UsageError
from personae.vision.encoder import Encoder, Kind


def load_encoder(spec: str, *, kind: Kind | None = None, device: str = "auto") -> Encoder:
    """Load an encoder.

    Args:
        spec: a name (`toon_identity`), a hub id or folder an encoder recognises
            (`facebook/dinov2-small`), or both (`clip:/models/my-clip`).
        kind: refuse an encoder of another kind: "identity" or "image_text".
        device: auto, cuda, mps or cpu.

    Raises:
        UsageError: no such encoder, or one of the wrong kind.
        EncoderError: its weights or its library are not there; the message says how to get them.
    """
    name, _, source = spec.partition(":")
    encoders = registry.discover(Encoder)
    if name in encoders:
        chosen = encoders[name]
    else:
        source = spec
        matching = [encoder for encoder in encoders.values() if encoder.recognises(spec)]
        if not matching:
            raise UsageError(
                f"encoder is '{spec}'; it must be one of {', '.join(encoders)}, or a hub id or "
                f"folder after such a name, as in clip:FOLDER.{registry.nearest(name, encoders)}"
            )
        chosen = matching[0]
    if kind == "image_text" and chosen.kind != kind:
        fitting = [encoder.name for encoder in encoders.values() if encoder.kind == kind]
        raise UsageError(
            f"encoder is '{spec}', which reads no text; agreement needs one of {', '.join(fitting)}"
        )
    return chosen.load(source or None, pick_device(device))
