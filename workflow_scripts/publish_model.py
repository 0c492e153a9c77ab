"""Lay out a trained encoder as a folder for a model hub: weights, card, licenses, citation.

Reads the encoder with the metadata in its file, options and metrics of the training, and the scores of
the probes where there are tasks.
Writes `results/published/models/{model}/`.
"""

import json
import logging
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from workflow_scripts.core.stage import atomic_path, read_json, run_stage
from workflow_scripts.publish.layout import front_matter, license_facts, place, write_citation, write_licenses

LOG = logging.getLogger(__name__)

HOW_TO_LOAD = """\
```python
import json

from safetensors import safe_open
from safetensors.torch import load_file

weights = load_file("encoder.safetensors")  # {names}
with safe_open("encoder.safetensors", "pt") as file:
    facts = file.metadata()
bands = json.loads(facts["bands"])  # the order of the input's channels
```

Inputs: harmonized DN / 255, and NDVI x 10,000 / 255, clipped at 0. {build}"""

BUILD = {
    "resnet": (
        "keys as in torchvision's ResNet, without `fc`",
        "Build the network with as many input channels as there are bands and without a last layer: in timm "
        "`create_model(NAME, in_chans=len(bands), num_classes=0)`, then `load_state_dict(weights)`.",
    ),
    "vit": (
        "keys as in timm's ViT, without `head`",
        "Build the network in timm with `in_chans=len(bands), num_classes=0`, then `load_state_dict(weights)`.",
    ),
}


def encoder_metadata(path: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file: eight bytes of length, then JSON."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(length)).get("__metadata__", {})


def score_rows(scores: Sequence[Mapping[str, Any]]) -> list[str]:
    """Tabulate the probes' means as Markdown lines, one per task, probe and kind of folds."""
    rows = ["| Task | Probe | Folds | Metric | Mean |", "|---|---|---|---|--:|"]
    for document in scores:
        metric = document["main_metric"]
        for kind, division in document["folds"].items():
            mean = division["scores"][metric]["mean"]
            rows.append(f"| {document['task']} | {document['probe']} | {kind} | {metric} | {mean:.3f} |")
    return rows if len(rows) > 2 else []


def write_card(
    name: str,
    *,
    settings: Mapping[str, Any],
    metadata: Mapping[str, str],
    sources: Sequence[Mapping[str, str]],
    notice: str | None,
    scores: Sequence[Mapping[str, Any]],
) -> str:
    """Compose the model card.

    Parameters
    ----------
    name : of the model
    settings : its options
    metadata : of the encoder's file
    sources : of the dataset it was trained on
    notice : of that dataset
    scores : contents of the probes' files

    Returns
    -------
    Markdown
    """
    backbone = metadata.get("backbone", settings.get("backbone", "unknown"))
    names, build = BUILD["vit" if backbone.startswith("vit") else "resnet"]
    head = front_matter(
        {
            **license_facts(sources),
            "library_name": "safetensors",
            "tags": [
                "earth-observation",
                "sentinel-2",
                "self-supervised-learning",
                settings["objective"],
                "ecology",
            ],
            "pipeline_tag": "image-feature-extraction",
            "datasets": [settings["dataset"]],
        }
    )
    facts = [
        f"- {key.replace('_', ' ')}: {value}" for key, value in sorted(metadata.items()) if key != "format"
    ]
    rows = score_rows(scores)
    sections = [
        f"{head}# {name}",
        f"> **Note.** {notice}" if notice else "",
        f"A {backbone} trained without labels (objective {settings['objective']}) on the seasonal Sentinel-2 patches of "
        f"dataset {settings['dataset']}. It turns a patch into one vector of features.",
        "## How to load it\n\n" + HOW_TO_LOAD.replace("{names}", names).replace("{build}", build),
        "## How it was made\n\n" + "\n".join(facts),
        "`options.json` has every option of the training, `metrics.jsonl` its course.",
        "## Scores of the frozen encoder\n\n" + "\n".join(rows) if rows else "",
        "## What it is for, and what it is not\n\n"
        "Features of land for ecological questions, with a small head trained on labels of your own. It saw the places, "
        "seasons and sensor of its dataset and nothing else; test it on held-out regions before you trust a map made "
        "with it. It was not made to identify people or property.",
        "## Licenses\n\nOf the sources of its data: [LICENSES.md](LICENSES.md). Cite as in [CITATION.cff](CITATION.cff).",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def main(job: SimpleNamespace) -> None:
    """Lay out the folder of one model."""
    name, settings, report = job.wildcards.model, job.params.model, job.params.report
    folder = Path(job.output.card).parent
    for file in ("encoder", "options", "metrics"):
        path = Path(getattr(job.input, file))
        place(path, folder / path.name)
    metadata = encoder_metadata(Path(job.input.encoder))
    scores = [read_json(path) for path in job.input.scores]
    card = write_card(
        name,
        settings=settings,
        metadata=metadata,
        sources=report["sources"],
        notice=report["notice"],
        scores=scores,
    )
    with atomic_path(job.output.card) as temporary:
        temporary.write_text(card, encoding="utf-8")
    write_licenses(Path(job.output.licenses), report["sources"], what=name)
    version = metadata.get("dataset_digest") or "1"
    write_citation(Path(job.output.citation), title=f"Encoder {name}", kind="model", version=version)
    LOG.info("%s: laid out, %d scores", folder, len(scores))


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
