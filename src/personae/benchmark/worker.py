"""The process of one measurement: reads a job from its command line, writes one line of JSON.

python -m personae.benchmark.worker JOB
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import nullcontext

from personae.benchmark.jobs import Job
from personae.errors import PersonaeError


def measure(job: Job) -> Mapping[str, object]:
    """Do a job and return its figures by name."""
    match job.kind, job.side:
        case "peak", _:
            return _peak(job)
        case "operations", _:
            from personae.benchmark.operations import operations

            return operations(job)
        case "training", side:
            from personae.benchmark import training_job

            train = training_job.train_ours if side == "personae" else training_job.train_plain
            return train(job)
        case "drawing", side:
            from personae.benchmark import drawing_job

            return (drawing_job.draw_ours if side == "personae" else drawing_job.draw_plain)(job)


def _peak(job: Job) -> Mapping[str, object]:
    import torch

    from personae.benchmark.machine import peak_rates
    from personae.core.devices import pick_device
    from personae.models.acceleration.wide_products import Widening, lacks_kernels
    from personae.models.weights.quantised import pick_format

    device = pick_device(job.device)
    dtype = pick_format(job.precision, device)
    with Widening() if lacks_kernels(device, dtype) else nullcontext():
        rates = peak_rates(device, dtype, job.now)
    about = {"threads": torch.get_num_threads(), "torch": torch.__version__, "device": str(device)}
    return {"rates": rates, "peak_rate": max(rates.values()), **about}


def main(text: str) -> int:
    """Do the job in `text` (JSON) and write what was measured, or why it was not."""
    try:
        result = measure(Job.model_validate_json(text))
    except PersonaeError as error:
        result = {"error": str(error)}
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
