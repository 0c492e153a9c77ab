"""Real MOD13A1 and MOD13Q1 series through the user's way in, against the reference dates.

The reference (Boston University's segment and date code, R's spline, lambda 3000) judges each year
in a window of its own and has no rule for gaps; ours takes the range of three years (MCD12Q2) and
leaves out cycles with a gap of more than 64 days. Parity of code, not accuracy.
"""

from types import SimpleNamespace

import geopandas as gpd
import pandas as pd
import pytest

from workflow_scripts import define_seasons, estimate_phenology, extract_greenness
from workflow_scripts.core import tables
from workflow_scripts.core.seasons import TRANSITIONS, circular_difference

pytestmark = pytest.mark.real

PHASES = dict(
    zip(
        ("Greenup", "MidGreenup", "Maturity", "Peak", "Senescence", "MidGreendown", "Dormancy"),
        TRANSITIONS,
        strict=True,
    )
)
SAME_CYCLE_DAYS = 60
"""Cycles of one location whose peaks are farther apart are not the same."""


def flux_sites(folder):
    """Five flux sites, MOD13A1 with reliability."""
    raw = pd.read_csv(folder / "mod13a1_fluxsites.csv")
    sites = pd.read_csv(folder / "mod13a1_sites.csv").rename(columns={"site": "location_id"})
    series = pd.DataFrame(
        {
            "location_id": raw["site"],
            "date": raw["obs_date"],
            "evi": raw["evi"] / 1e4,
            "reliability": raw["pixel_reliability"],
        }
    )
    return sites[["location_id", "lon", "lat"]], series


def brazil(folder):
    """32 points, MOD13Q1 without quality flags; -0.3 is its fill value."""
    raw = pd.read_csv(folder / "mod13q1_brazil.csv").rename(columns={"series_id": "location_id"})
    sites = raw.drop_duplicates("location_id")[["location_id", "lon", "lat"]]
    return sites, raw[["location_id", "date", "evi"]]


DATASETS = {"fluxsites": flux_sites, "brazil": brazil}


def run_stages(tmp_path, locations, series, **phenology):
    """The three stages, through their files."""
    kinds = tables.COLUMNS["locations"]
    text = {c: "" for c, kind in kinds.items() if str(kind) == "string"}
    numbers = {c: 0 for c, kind in kinds.items() if str(kind) != "string"}
    whole = locations.assign(**{c: v for c, v in (text | numbers).items() if c not in locations})
    whole = whole.assign(is_mountain=False)
    whole = gpd.GeoDataFrame(whole, geometry=gpd.points_from_xy(whole["lon"], whole["lat"]), crs=4326)
    tables.write_table(whole, tmp_path / "locations.parquet", "locations")
    series.to_csv(tmp_path / "series.csv", index=False)
    files = SimpleNamespace(
        locations=tmp_path / "locations.parquet",
        series=tmp_path / "series.csv",
        tiles=[],
        store=tmp_path / "greenness.zarr" / "zarr.json",
        greenness=tmp_path / "greenness.zarr" / "zarr.json",
        cycles=tmp_path / "cycles.parquet",
        seasons=tmp_path / "seasons.parquet",
    )
    names = {"strategy": "phenology", "names": ["spring", "summer", "autumn", "winter"]}
    for stage, settings in (
        (extract_greenness, {"source": "file", "index": "evi"}),
        (estimate_phenology, phenology),
        (define_seasons, names),
    ):
        params = SimpleNamespace(
            settings=settings, climatology={"min_years": 3, "group_days": 60}, seed=1, max_sun_zenith=85
        )
        stage.main(SimpleNamespace(input=files, output=files, params=params, threads=2))
    return tables.read_table(files.cycles, "cycles"), tables.read_table(files.seasons, "seasons")


def read_reference(path):
    """Reference dates, one row per cycle."""
    table = pd.read_csv(path, parse_dates=["date"])
    table = table.rename(columns={table.columns[0]: "location_id"})
    table["phase"] = table["phase"].map(PHASES)
    return table.pivot(index=["location_id", "year", "cycle"], columns="phase", values="date").reset_index()


def compare(cycles, reference):
    """Differences in days of the cycles both have, matched one to one by the nearest peak."""
    pairs = reference.merge(cycles, on="location_id", suffixes=("", "_ours"))
    pairs["apart"] = (pairs["peak_ours"] - pairs["peak"]).dt.days.abs()
    pairs = pairs[pairs["apart"] <= SAME_CYCLE_DAYS].sort_values("apart")
    pairs = pairs.drop_duplicates(["location_id", "year", "cycle"])
    pairs = pairs.drop_duplicates(["location_id", "year_ours", "cycle_ours"])
    return pd.DataFrame({name: (pairs[f"{name}_ours"] - pairs[name]).dt.days for name in TRANSITIONS})


@pytest.fixture(scope="module")
def results(real_data, tmp_path_factory):
    folder = real_data / "phenology"
    found = {}
    for name, read in DATASETS.items():
        locations, series = read(folder)
        reference = read_reference(folder / f"reference_bu_lam3000_{name}.csv")
        for rule, options in (("as configured", {}), ("without the gap rule", {"max_gap_days": 1e4})):
            cycles, seasons = run_stages(tmp_path_factory.mktemp(name), locations, series, **options)
            found[name, rule] = cycles, seasons, reference, compare(cycles, reference)
    return found


def test_dates_agree_with_the_reference(results, capsys):
    lines = []
    for (name, rule), (cycles, _, reference, error) in results.items():
        phases = ", ".join(f"{phase} {days:.2f}" for phase, days in error.abs().mean().items())
        lines.append(
            f"{name}, {rule}: {len(cycles)} cycles, reference {len(reference)}, coverage "
            f"{len(error) / len(reference):.3f}, mean absolute error {error.abs().to_numpy().mean():.2f} d ({phases})"
        )
    configured = [value for key, value in results.items() if key[1] == "as configured"]
    errors = pd.concat([value[3] for value in configured])
    coverage = len(errors) / sum(len(value[2]) for value in configured)
    overall = errors.abs().to_numpy().mean()
    lines.append(f"both, as configured: coverage {coverage:.3f}, mean absolute error {overall:.2f} d")
    with capsys.disabled():
        print("\n" + "\n".join(lines))
    assert coverage >= 0.95
    assert overall <= 1.0


def test_seasons_of_known_sites(results):
    cycles, seasons, _, _ = results["fluxsites", "as configured"]
    start = seasons[seasons["source"] == "observed"].pivot(
        index="location_id", columns="season", values="start_doy"
    )
    assert len(start) == 5
    # the wet season of northern Australia crosses New Year; a plain median of days gave 39
    assert abs(circular_difference(start.loc["AU-How", "summer"], 2)) <= 10
    assert 70 <= start.loc["AT-Neu", "spring"] <= 140 and 120 <= start.loc["CA-NS6", "spring"] <= 170
    evergreen = cycles[cycles["location_id"] == "DE-Obe"]
    meadow = cycles[cycles["location_id"] == "AT-Neu"]
    assert evergreen["amplitude"].median() < 0.6 * meadow["amplitude"].median()
