"""What a sample was chosen from, and how evenly: the contents of `sampling.json`."""

from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from workflow_scripts.core import grid
from workflow_scripts.sampling.designs import Sample
from workflow_scripts.sampling.draw import stratum_rng
from workflow_scripts.sampling.frame import ECOREGION_COLUMNS

N_RANDOM_DRAWS = 5
"""Simple random draws that the balance is compared with."""


def summarize(sampled: Sample, *, design: str, seed: int) -> dict[str, Any]:
    """Summarize a sample.

    Returns
    -------
    dict: `design`, `spacing_m`, `n_locations`, `n_places` and `land_area_km2` (what was chosen from; None
    for the user's points), `strata` and `ecoregions` (lists of groups with `n_places`, `area_km2`,
    `n_locations`), `without_location` (strata that hold no location of the grid: `stratum`,
    `area_km2`, `is_placed`), `balance`
    """
    places, chosen, missed = sampled.places, sampled.locations, sampled.missed
    held = set() if places is None else set(places["stratum"])
    return {
        "design": design,
        "spacing_m": sampled.spacing_m,
        "n_locations": len(chosen),
        "n_places": None if places is None else len(places),
        "land_area_km2": None if places is None else round(float(places["area_km2"].sum()), 1),
        "strata": _groups(sampled, ["stratum"]),
        "ecoregions": _groups(sampled, list(ECOREGION_COLUMNS.values())),
        "without_location": []
        if missed is None
        else [
            {"stratum": row.stratum, "area_km2": round(row.area_km2, 1), "is_placed": row.stratum in held}
            for row in missed.itertuples()
        ],
        "balance": balance(sampled, seed=seed),
    }


def _groups(sampled: Sample, keys: list[str]) -> list[dict[str, Any]]:
    """Count and measure per group: places that could be drawn, their area, locations drawn."""
    counts = sampled.locations.groupby(keys).size().rename("n_locations")
    if sampled.places is None:
        table = counts.to_frame().assign(n_places=None, area_km2=None)
    else:
        table = sampled.places.groupby(keys)["area_km2"].agg(["size", "sum"]).round(1)
        table = table.rename(columns={"size": "n_places", "sum": "area_km2"})
        table = table.join(counts).fillna({"n_locations": 0}).astype({"n_locations": int})
    return table.reset_index().to_dict("records")


def balance(sampled: Sample, *, seed: int) -> dict[str, float] | None:
    """Compare the spatial balance with that of simple random draws in the same strata.

    Each place belongs to the nearest location; the inclusion probabilities of a location's places add
    up to 1 on average, and exactly 1 in a perfectly balanced sample (Stevens and Olsen 2004). The
    variance of these sums measures the imbalance.

    Returns
    -------
    dict: `sample` and `simple_random`, the variances; None where all places, or the user's, were taken
    """
    places, chosen = sampled.places, sampled.locations
    if places is None or len(chosen) < 2 or len(chosen) == len(places):
        return None
    rates = chosen.drop_duplicates("stratum").set_index("stratum")["inclusion_probability"]
    probability = places["stratum"].map(rates).fillna(0).to_numpy()
    xyz = grid.sphere_xyz(places["lon"], places["lat"])

    def variance(rows: np.ndarray) -> float:
        owner = cKDTree(xyz[rows]).query(xyz, workers=1)[1]
        return float(np.var(np.bincount(owner, probability, minlength=len(rows))))

    rng = stratum_rng(seed, "balance")
    members = places.groupby("stratum").indices
    counts = chosen.groupby("stratum").size()

    def random_rows() -> np.ndarray:
        return np.concatenate([rng.choice(members[s], n, replace=False) for s, n in counts.items()])

    return {
        "sample": round(variance(np.flatnonzero(places["location_id"].isin(chosen["location_id"]))), 4),
        "simple_random": round(float(np.mean([variance(random_rows()) for _ in range(N_RANDOM_DRAWS)])), 4),
    }
