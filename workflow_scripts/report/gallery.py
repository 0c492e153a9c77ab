"""Patches to look at: the same places over the seasons."""

import numpy as np

from workflow_scripts.core.pictures import GAMMA, true_color
from workflow_scripts.report import page
from workflow_scripts.report.drawing import pixels_uri
from workflow_scripts.report.inputs import Dataset
from workflow_scripts.report.maps import biome_of, pick_examples
from workflow_scripts.report.timing import REASONS

LONGEST_PIXELS = 192


def gallery_section(dataset: Dataset) -> str:
    """Show the same places over the seasons, in true color with one fixed stretch."""
    if dataset.store is None or dataset.stored is None or dataset.stored.empty:
        return ""
    counts = dataset.stored.groupby("location_id").size().sort_values(ascending=False, kind="stable")
    chosen = pick_examples(dataset.locations, list(counts.index), dataset.settings["report"]["examples"])
    white = dataset.settings["report"]["max_reflectance"]
    size_m = dataset.settings["patches"]["size_m"]
    note = page.paragraph(
        f"True color (B04, B03, B02), each patch {size_m:,} m wide, north up. White is reflectance {white:g} in every "
        f"picture, gamma {GAMMA:g}: nothing is stretched to look good, so they can be compared."
    )
    strips = [_strip(dataset, location_id, white=white) for location_id in chosen]
    kind = "strip pixels" if dataset.store.sizes["y10"] <= LONGEST_PIXELS else "strip"
    if len(dataset.season_names) == 1:
        return note + page.grid([_titled(title, pictures[0]) for title, pictures in strips], kind=kind)
    return note + "".join(page.heading(title) + page.grid(pictures, kind=kind) for title, pictures in strips)


def _strip(dataset: Dataset, location_id: str, *, white: float) -> tuple[str, list[str]]:
    """Give a location's title and one figure per season."""
    row = dataset.locations.index[dataset.locations["location_id"] == location_id][0]
    place = dataset.locations.loc[[row]]
    patches = dataset.store[["dn10"]].isel(location=int(row)).load()
    names = patches["band10"].to_numpy().tolist()
    index = dataset.patches[dataset.patches["location_id"] == location_id].set_index("season")
    pictures = []
    for season in dataset.season_names:
        if season not in index.index or index.loc[season, "status"] != "ok":
            reason = (
                REASONS.get(index.loc[season, "reason"], "missing") if season in index.index else "missing"
            )
            pictures.append(
                f'<figure><div class="missing">no patch: {page.text(reason)}</div>'
                f"<figcaption>{page.text(season)}</figcaption></figure>"
            )
            continue
        patch = index.loc[season]
        rgb = true_color(patches["dn10"].sel(season=season).to_numpy(), names, white=white)
        cloud = (
            "" if np.isnan(patch["cloud_fraction"]) else f", cloud {100 * patch['cloud_fraction']:.0f}\u00a0%"
        )
        caption = f"{season}, {patch['datetime']:%d %b %Y} ({patch['days_from_target']:+d} d{cloud})"
        alt = f"True color patch of location {location_id} in {season}, {patch['datetime']:%Y-%m-%d}"
        pictures.append(page.figure(pixels_uri(rgb, longest=LONGEST_PIXELS), alt=alt, caption=caption))
    where = page.place_name(place["lon"].iloc[0], place["lat"].iloc[0], 3)
    title = f"{location_id}: {biome_of(place).iloc[0]} ({where})"
    return title, pictures


def _titled(title: str, figure: str) -> str:
    """Put a location's title into the caption of its only figure."""
    return figure.replace("<figcaption>", f"<figcaption>{page.text(title)}; ")
