"""The chosen scenes and their patches by biome: what they show, and whether their season was that year's."""

import numpy as np
import pandas as pd

from workflow_scripts.core.bands import SCL_CLASSES
from workflow_scripts.core.seasons import TRANSITIONS
from workflow_scripts.report import page
from workflow_scripts.report.drawing import GRAY, OKABE_ITO, legend_below, picture, season_color
from workflow_scripts.report.inputs import Dataset
from workflow_scripts.report.maps import biome_of

PHASES = {
    "spring": ("greenup", "maturity"),
    "summer": ("maturity", "senescence"),
    "autumn": ("senescence", "dormancy"),
    "winter": ("dormancy", "greenup"),
}
"""Transitions between which a season lies; winter ends with the next cycle's greenup."""
GROUPS = (
    ("vegetation", (4,), OKABE_ITO[2]),
    ("not vegetated", (5,), OKABE_ITO[4]),
    ("water", (6,), OKABE_ITO[0]),
    ("snow or ice", (11,), OKABE_ITO[5]),
    ("cloud or cirrus", (8, 9, 10), OKABE_ITO[3]),
    ("shadow or dark", (2, 3), "#000000"),
    ("unclassified, saturated or no data", (0, 1, 7), GRAY),
)
"""Classes of the scene classification that one bar shows together."""
assert sorted(number for _, numbers, _ in GROUPS for number in numbers) == list(SCL_CLASSES)


def scenes_section(dataset: Dataset) -> str:
    """Show scene classes, sun, alignment, span and losses by biome, and the share within that year's phase."""
    stored = dataset.stored
    if stored is None or stored.empty or dataset.locations is None or dataset.store is None:
        return ""
    biome = biome_of(dataset.locations).set_axis(dataset.locations["location_id"])
    figures = [_classes(dataset, biome), _sun(dataset, stored), _spans(dataset)]
    return page.grid(figures) + biome_table(dataset, biome) + phase_table(dataset, stored)


def biome_table(dataset: Dataset, biome: pd.Series) -> str:
    """Sum up patches per biome: how many are lost and why, clouds, sun, alignment, span.

    Parameters
    ----------
    dataset : with patches and store
    biome : name by location id
    """
    patches = dataset.patches.assign(biome=dataset.patches["location_id"].map(biome).to_numpy())
    of_location = pd.DataFrame(
        {
            "biome": biome.reindex(dataset.store["location_id"].values.astype(object)).to_numpy(),
            "aligned": dataset.store["aligned"].values,
            "span": dataset.store["span_days"].values,
        }
    )
    rows = []
    for name, part in patches.groupby("biome"):
        there, lost = part[part["status"] == "ok"], part[part["status"] != "ok"]
        places = of_location[(of_location["biome"] == name) & of_location["span"].notna()]
        reasons = lost["reason"].value_counts()
        rows.append(
            [
                name,
                page.count(len(there)),
                page.share(len(lost), len(part)),
                page.share((there["reason"] == "second_pass").sum(), len(there)),
                page.number(100 * there["cloud_fraction"].median(), 1),
                page.number(there["sun_zenith"].median(), 0),
                page.share(places["aligned"].sum(), len(places)),
                page.number(places["span"].median(), 0),
                ", ".join(f"{reason} {page.count(n)}" for reason, n in reasons.items()) or "–",
            ]
        )
    header = [
        "Biome",
        "Patches",
        "Lost",
        "Cloudier scenes, clear over the patch",
        "Median cloud over the patch, %",
        "Median sun zenith, degrees",
    ]
    header += ["Locations of one zone and origin", "Median span, days", "Lost by reason"]
    return page.table(header, rows, caption="Patches by biome")


def in_observed_phase(patches: pd.DataFrame, cycles: pd.DataFrame) -> pd.Series:
    """Tell whether a scene was taken within its season as the location's own cycles of that time have it.

    The window of a season is a mean over years; this asks the year itself.

    Parameters
    ----------
    patches : `location_id`, `season`, `datetime`
    cycles : table `cycles`

    Returns
    -------
    Series as `patches`: 1 within, 0 outside, NaN where the season is none of `PHASES` or no cycle
    around that time was observed
    """
    cycles = cycles.dropna(subset=["greenup", "dormancy"]).sort_values(["location_id", "greenup"])
    following = cycles.groupby("location_id")["greenup"].shift(-1)
    result = pd.Series(np.nan, patches.index)
    day = patches["datetime"].dt.normalize()
    for season, (first, last) in PHASES.items():
        mine = patches[patches["season"] == season]
        ends = following if season == "winter" else cycles[last]
        spans = pd.DataFrame(
            {"location_id": cycles["location_id"], "start": cycles[first], "end": ends}
        ).dropna()
        pairs = mine[["location_id"]].reset_index().merge(spans, on="location_id")
        when = day.reindex(pairs["index"]).to_numpy()
        pairs["inside"] = (pairs["start"].to_numpy() <= when) & (when < pairs["end"].to_numpy())
        middle = pairs["start"] + (pairs["end"] - pairs["start"]) / 2
        pairs["near"] = np.abs(when - middle.to_numpy()) <= np.timedelta64(183, "D")
        found = pairs[pairs["near"] | pairs["inside"]].groupby("index")["inside"].any()
        result.loc[found.index] = found.astype(float)
    return result


def phase_table(dataset: Dataset, stored: pd.DataFrame) -> str:
    """Give, per season, the share of scenes within that very year's observed phase."""
    if dataset.cycles is None or not set(PHASES) & set(dataset.season_names):
        return ""
    if not set(TRANSITIONS) <= set(dataset.cycles):
        return ""
    inside = in_observed_phase(stored, dataset.cycles)
    rows = []
    for season in dataset.season_names:
        known = inside[stored["season"] == season]
        n_known = int(known.notna().sum())
        rows.append([season, page.count(len(known)), page.count(n_known), page.share(known.sum(), n_known)])
    header = ["Season", "Patches", "With a cycle observed then", "Within that year's own phase"]
    return page.table(header, rows, caption="Scenes within the phase their own year had")


def _classes(dataset: Dataset, biome: pd.Series) -> str:
    """Draw the mean share of each scene class by biome."""
    fractions = dataset.store["scl_fraction"].values
    by_location = pd.DataFrame(
        np.nanmean(np.where(np.isnan(fractions).all(axis=1, keepdims=True), 0, fractions), axis=1)
    )
    known = ~np.isnan(fractions).all(axis=(1, 2))
    names = biome.reindex(dataset.store["location_id"].values.astype(object)).to_numpy()
    means = by_location[known].groupby(names[known]).mean()
    if means.empty:
        return ""
    with picture(5.2, 1.4 + 0.32 * len(means)) as drawn:
        left = np.zeros(len(means))
        for label, numbers, color in GROUPS:
            width = 100 * means[list(numbers)].sum(axis=1).to_numpy()
            drawn.ax.barh(means.index, width, left=left, color=color, label=label, height=0.7)
            left += width
        drawn.ax.set(xlabel="mean share of the patch, %", xlim=(0, 100))
        drawn.ax.invert_yaxis()
        drawn.ax.grid(visible=False, axis="y")
        legend_below(drawn.ax, n_columns=3)
    told = "; ".join(
        f"{name}: vegetation {100 * row[4]:.0f} %, cloud {100 * row[[8, 9, 10]].sum():.0f} %"
        for name, row in means.iterrows()
    )
    alt = f"Mean share of scene classes over the stored patches by biome. {told}."
    return page.figure(drawn.uri, alt=alt, caption="What the scene classification sees in the patches.")


def _sun(dataset: Dataset, stored: pd.DataFrame) -> str:
    """Draw sun zenith by season."""
    zenith = stored["sun_zenith"]
    if zenith.isna().all():
        return ""
    bins = np.arange(0, 91, 5)
    with picture(5.2, 3.0) as drawn:
        for season in dataset.season_names:
            values = zenith[stored["season"] == season].dropna()
            color = season_color(season, dataset.season_names)
            drawn.ax.hist(values, bins=bins, histtype="step", color=color, lw=1.5, label=season)
        limit = dataset.settings["scenes"].get("max_sun_zenith")
        if limit is not None:
            drawn.ax.axvline(limit, color=GRAY, lw=1, ls=":")
        drawn.ax.set(xlabel="sun zenith, degrees (dotted: the limit)", ylabel="patches", xlim=(0, 90))
        legend_below(drawn.ax)
    medians = stored.groupby("season")["sun_zenith"].median()
    alt = "Histogram of sun zenith by season; medians: "
    alt += ", ".join(f"{season} {medians.get(season, np.nan):.0f}" for season in dataset.season_names) + "."
    return page.figure(drawn.uri, alt=alt, caption="How low the sun stood.")


def _spans(dataset: Dataset) -> str:
    """Draw the days between the first and the last scene of a location."""
    spans = dataset.store["span_days"].values
    spans = spans[~np.isnan(spans)] / 365.25
    if spans.size == 0:
        return ""
    aligned = float(np.mean(dataset.store["aligned"].values[~np.isnan(dataset.store["span_days"].values)]))
    with picture(5.2, 3.0) as drawn:
        drawn.ax.hist(spans, bins=np.linspace(0, max(1.0, spans.max()), 33), color=OKABE_ITO[0], lw=0)
        drawn.ax.set(xlabel="years between the first and the last scene", ylabel="locations")
    alt = f"Histogram of the years between the scenes of a location, median {np.median(spans):.1f}."
    caption = f"Span of a location's scenes. {100 * aligned:.0f} % of the locations have one zone and origin."
    return page.figure(drawn.uri, alt=alt, caption=caption)
