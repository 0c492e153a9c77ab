"""Describe a dataset to the people who will use it.

Reads the dataset's tables, its store's metadata, `bands.json`, `weights.json` and `verification.json`.
Writes `README.md` (the card: what was asked, what is there, what is missing and why, how to open it,
sources, limits) and `collection.json` (a STAC collection that points to store and index).
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pystac
import xarray as xr
import yaml

from workflow_scripts.core import bands, store, tables
from workflow_scripts.core.objects import parent
from workflow_scripts.core.stage import atomic_path, read_json, run_stage, write_json
from workflow_scripts.publish.layout import front_matter, license_facts

LOG = logging.getLogger(__name__)

COLUMNS = ["location_id", "season", "status", "reason", "collection", "datetime", "lon", "lat", "is_complete"]

HOW_TO_OPEN = """\
```python
import geopandas as gpd
import xarray as xr

patches = xr.open_zarr("patches.zarr")                # lazy; native resolution, DN without offset, 0 = no data
index = gpd.read_parquet("patches.parquet")           # one row per location and season, also the missing ones
one = patches.isel(location=0).sel(season="{season}")
reflectance = one["dn10"].sel(band10=["B04", "B03", "B02"]) * 1e-4
```

Join tables by `location_id`; row number in `locations.parquet` is the position along `location`."""

LIMITS = (
    "A patch is one moment. Clouds are judged by the scene classification (SCL) where the catalog has it; thin cloud, "
    "haze and cloud shadow remain, and bright ground, snow or salt is at times taken for cloud.",
    "Scenes come from several years; the same season of neighboring locations can be years apart.",
    "Season windows of locations without a usable vegetation cycle are taken from a donor (`source` is `filled`, "
    "`donor_distance_km` says from how far).",
    "Pixels are surface reflectance as published (Level-2A): no correction for illumination, slope or viewing angle.",
    "The sampling design decides what averages mean: weight by `1 / inclusion_probability` to speak for the land "
    "sampled; a location is a point, not an area.",
)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[Any]], *, align: str = "--:") -> str:
    """Make a Markdown table; the first column is text, the others align right, or as `align` says."""
    lines = ["| " + " | ".join(header) + " |", "|---|" + f"{align}|" * (len(header) - 1)]
    lines += ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def missing_by_reason(patches: pd.DataFrame, seasons: Sequence[str]) -> pd.DataFrame:
    """Count patches per season: stored ones, and the missing by reason.

    Returns
    -------
    DataFrame, index season, columns `stored` and one per reason
    """
    outcome = patches["reason"].where(patches["status"] != "ok", "stored")
    counts = pd.crosstab(patches["season"], outcome).reindex(list(seasons), fill_value=0)
    reasons = sorted(column for column in counts if column != "stored")
    return counts.reindex(columns=["stored", *reasons], fill_value=0)


def headline(patches: pd.DataFrame) -> dict[str, Any]:
    """Give the figures that sum a dataset up.

    Returns
    -------
    n_locations, n_complete (2 seasons or more), n_asked, n_stored, first and last day (None if nothing is stored)
    """
    stored = patches[patches["status"] == "ok"]
    days = stored["datetime"].dropna()
    return {
        "n_locations": int(patches["location_id"].nunique()),
        "n_complete": int(patches.loc[patches["is_complete"], "location_id"].nunique()),
        "n_asked": len(patches),
        "n_stored": len(stored),
        "first": days.min() if len(days) else None,
        "last": days.max() if len(days) else None,
    }


def arrays_table(patches: xr.Dataset) -> str:
    """List the store's arrays as they are."""
    rows = [
        [
            f"`{name}`",
            ", ".join(f"{dim} {size:,}" for dim, size in array.sizes.items()),
            "text" if array.dtype.kind in "OTU" else str(array.encoding.get("dtype", array.dtype)),
            array.attrs.get("long_name", ""),
        ]
        for name, array in patches.variables.items()
    ]
    return markdown_table(["Array", "Dimensions", "Type", "What"], sorted(rows), align="---")


def rejection_table(paths: Iterable[str], seasons: Sequence[str]) -> str:
    """Count the scenes considered, per season: candidates, and the others by reason."""
    parts = [pd.DataFrame(tables.read_table(path, "scenes", ["season", "reason", "n"])) for path in paths]
    scenes = pd.concat(parts) if parts else pd.DataFrame({"season": [], "reason": [], "n": []})
    if scenes.empty:
        return "No scene was found.\n"
    counts = scenes.pivot_table(index="season", columns="reason", values="n", aggfunc="sum", fill_value=0)
    rows = [[season, *(f"{n:,}" for n in counts.loc[season])] for season in seasons if season in counts.index]
    return markdown_table(["Season", *(f"`{reason}`" for reason in counts.columns)], rows)


def source_lines(sources: Sequence[Mapping[str, str]]) -> list[str]:
    """Name each source with license and citation; say so where the config declares none."""
    if not sources:
        return [
            "- None declared (`report.sources` in the configuration); check the licenses of what was used."
        ]
    lines = []
    for source in sources:
        name = f"[{source['name']}]({source['url']})" if source.get("url") else source["name"]
        citation = f" {source['citation']}" if source.get("citation") else ""
        lines.append(f"- {name}: {source['license']}.{citation}")
    return lines


def metadata_block(name: str, *, settings: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Give what model hubs read of a dataset: name, license, size, tags, and which file to preview."""
    n = facts["n_stored"]
    steps = (("n<1K", 1e3), ("1K<n<10K", 1e4), ("10K<n<100K", 1e5), ("100K<n<1M", 1e6))
    size = next((label for label, limit in steps if n < limit), "1M<n<10M")
    return {
        "pretty_name": settings["report"]["title"] or name,
        **license_facts(settings["report"]["sources"]),
        "tags": ["earth-observation", "sentinel-2", "phenology", "ecology", "zarr", "stac", "geospatial"],
        "task_categories": ["image-feature-extraction"],
        "size_categories": [size],
        "configs": [
            {"config_name": table, "data_files": f"{table}.parquet"}
            for table in ("patches", "locations", "seasons")
        ],
    }


def write_card(
    name: str,
    *,
    settings: Mapping[str, Any],
    facts: Mapping[str, Any],
    patches: pd.DataFrame,
    seasons: pd.DataFrame,
    parts: Mapping[str, str],
) -> str:
    """Compose the card.

    Parameters
    ----------
    name : of the dataset
    settings : its resolved options
    facts : `headline`
    patches, seasons : tables
    parts : Markdown made elsewhere: arrays, rejections, bands, weights, verification

    Returns
    -------
    Markdown
    """
    report = settings["report"]
    order = list(dict.fromkeys(seasons["season"]))
    counts = missing_by_reason(patches, order)
    rows = [
        [season, *(f"{n:,}" for n in row)]
        for season, row in zip(counts.index, counts.to_numpy(), strict=True)
    ]
    filled = (seasons["source"] == "filled").mean() if len(seasons) else 0
    span = (
        "no scene"
        if facts["first"] is None
        else f"scenes from {facts['first']:%Y-%m-%d} to {facts['last']:%Y-%m-%d}"
    )
    complete = f", {facts['n_complete']:,} locations have two seasons or more" if len(order) > 1 else ""
    sections = [
        front_matter(metadata_block(name, settings=settings, facts=facts)) + f"# {report['title'] or name}",
        f"> **Note.** {report['notice']}" if report["notice"] else "",
        f"Sentinel-2 Level-2A patches of {settings['patches']['size_m']:,} m at {facts['n_locations']:,} locations in "
        f"{len(order)} season(s) ({', '.join(order)}): {facts['n_stored']:,} of {facts['n_asked']:,} patches are "
        f"stored{complete}; {span}.",
        f"## How to open it\n\n{HOW_TO_OPEN.replace('{season}', order[0] if order else 'summer')}",
        f"## What is missing, and why\n\n{markdown_table(['Season', *(f'`{c}`' for c in counts.columns)], rows)}",
        f"Scenes considered, the candidates and those turned down:\n\n{parts['rejections']}",
        f"{100 * filled:.1f} % of the season windows were filled from a donor.",
        f"## The store\n\n{parts['arrays']}",
        "`patches.parquet` names scene, tile, day, clouds, baseline and subtracted offset of every patch, and the "
        "reason of every missing one.",
        f"## Values\n\n{parts['bands']}\n\n{parts['weights']}",
        f"## Verification\n\n{parts['verification']}",
        "## Sources and licenses\n\n" + "\n".join(source_lines(report["sources"])),
        "## Limits\n\n" + "\n".join(f"- {line}" for line in LIMITS),
        "## What was asked\n\nEvery option of this dataset:\n\n```yaml\n"
        + yaml.safe_dump({name: dict(settings)}, sort_keys=False, allow_unicode=True)
        + "```",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def describe_bands(summary: Mapping[str, Any]) -> str:
    """Tabulate mean, deviation and percentiles of each band."""
    rows = []
    for band in (*bands.ALL_BANDS, "NDVI"):
        part = summary["bands"].get(band, {}).get("all", {"n": 0})
        if part["n"]:
            low, middle, high = (f"{part['percentiles'][key]:g}" for key in ("p01", "p50", "p99"))
            digits = 3 if band == "NDVI" else 0
            rows.append([band, f"{part['mean']:.{digits}f}", f"{part['std']:.{digits}f}", low, middle, high])
    if not rows:
        return "No pixel is stored."
    return "DN over all pixels with data (`bands.json` has them per season):\n\n" + markdown_table(
        ["Band", "Mean", "Std", "1 %", "50 %", "99 %"], rows
    )


def describe_weights(shares: Mapping[str, Any]) -> str:
    """Say which share of the locations is drawn more or less often."""
    if not shares["n_locations"]:
        return "No location has two seasons, so none is drawn in pretraining."
    return (
        f"Of the {shares['n_locations']:,} locations that train, {100 * shares['non_vegetated']:.1f} % are "
        f"non-vegetated (SSL4Eco: {100 * shares['paper']['non_vegetated']:.0f} %) and {100 * shares['mountain']:.1f} % "
        f"lie in mountains (SSL4Eco: {100 * shares['paper']['mountain']:.0f} %); `weights.parquet` has each one's weight."
    )


def describe_verification(verification: Mapping[str, Any]) -> str:
    """List the plain figures of the verification."""
    lines = [
        f"- {key.replace('_', ' ')}: {value}"
        for key, value in verification.items()
        if isinstance(value, str | int | float | bool)
    ]
    return "\n".join(lines) or "See `verification.json`."


def stac_collection(
    name: str, *, settings: Mapping[str, Any], facts: Mapping[str, Any], patches: pd.DataFrame
) -> dict[str, Any]:
    """Describe the dataset as a STAC collection whose assets are store and index."""
    first, last = (
        facts[key].to_pydatetime() if facts[key] is not None else None for key in ("first", "last")
    )
    if patches.empty:
        box = [-180.0, -90.0, 180.0, 90.0]
    else:
        box = [
            float(patches[c].agg(f))
            for c, f in (("lon", "min"), ("lat", "min"), ("lon", "max"), ("lat", "max"))
        ]
    licenses = sorted({source["license"] for source in settings["report"]["sources"]})
    notice = settings["report"]["notice"]
    collection = pystac.Collection(
        id=name,
        title=settings["report"]["title"] or name,
        description=f"Sentinel-2 Level-2A patches by season. {notice or ''}".strip(),
        extent=pystac.Extent(pystac.SpatialExtent([box]), pystac.TemporalExtent([[first, last]])),
        license="other",
        keywords=["Sentinel-2", "phenology", "self-supervised learning"],
        summaries=pystac.Summaries(
            {"collection": sorted(set(patches["collection"]) - {""}), "licenses": licenses}
        ),
        extra_fields={"version": "1"},
    )
    collection.add_asset(
        "patches", pystac.Asset("./patches.zarr", media_type="application/vnd+zarr", roles=["data"])
    )
    collection.add_asset(
        "index",
        pystac.Asset("./patches.parquet", media_type="application/vnd.apache.parquet", roles=["metadata"]),
    )
    return collection.to_dict(include_self_link=False)


def main(job: SimpleNamespace) -> None:
    """Write card and collection of one dataset."""
    name, settings = job.wildcards.dataset, job.params.settings
    patches = pd.DataFrame(tables.read_table(job.input.patches, "patches", COLUMNS))
    seasons = tables.read_table(job.input.seasons, "seasons", ["season", "source"])
    facts = headline(patches)
    order = list(dict.fromkeys(seasons["season"]))
    parts = {
        "arrays": arrays_table(store.open_store(parent(job.input.store))),
        "rejections": rejection_table(job.input.scenes, order),
        "bands": describe_bands(read_json(job.input.bands)),
        "weights": describe_weights(read_json(job.input.shares)),
        "verification": describe_verification(read_json(job.input.verification)),
    }
    card = write_card(name, settings=settings, facts=facts, patches=patches, seasons=seasons, parts=parts)
    with atomic_path(job.output.card) as temporary:
        temporary.write_text(card)
    write_json(job.output.collection, stac_collection(name, settings=settings, facts=facts, patches=patches))
    LOG.info("dataset %s: %d of %d patches, card written", name, facts["n_stored"], facts["n_asked"])


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821
