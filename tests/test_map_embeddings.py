"""Embeddings on a map: means over seasons, colors, neighbors, the files, the chapter of the report."""

import json
from pathlib import Path
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from workflow_scripts import map_embeddings
from workflow_scripts.core import store
from workflow_scripts.report import inputs
from workflow_scripts.report.embeddings import (
    embeddings_section,
    mean_embeddings,
    nearest,
    principal_colors,
    spread_examples,
)

N = 12


def two_kinds() -> np.ndarray:
    """Embeddings of two kinds of places, alternating, two seasons; place 4 has no patch, place 5 one."""
    rng = np.random.default_rng(0)
    kinds = np.eye(6)[np.arange(N) % 2]
    values = (kinds[:, None] + 0.05 * rng.normal(size=(N, 2, 6))).astype(np.float32)
    values[4] = np.nan
    values[5, 0] = np.nan
    return values


def mean_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average over seasons."""
    return mean_embeddings(xr.DataArray(values, dims=("location", "season", "feature")))


def test_means_leave_out_missing_seasons() -> None:
    """A place with one patch has its embedding, one without is left out."""
    values = two_kinds()
    rows, means = mean_of(values)
    assert 4 not in rows and len(rows) == N - 1
    np.testing.assert_allclose(means[rows == 5][0], values[5, 1])
    np.testing.assert_allclose(means[0], values[0].mean(axis=0), rtol=1e-6)


def test_colors_and_neighbors_follow_kinds() -> None:
    """Red tells the kinds apart; neighbors are of the same kind and never the place itself."""
    rows, means = mean_of(two_kinds())
    colors = principal_colors(means)
    left, sizes, _ = np.linalg.svd(means - means.mean(axis=0), full_matrices=False)
    for i in range(3):
        inner = (colors[:, i] > 0) & (colors[:, i] < 1)  # the rest is cut off
        assert abs(np.corrcoef(colors[inner, i], (left * sizes)[inner, i])[0, 1]) > 0.9999
    red = colors[:, 0]
    kinds = rows % 2
    assert abs(red[kinds == 0].mean() - red[kinds == 1].mean()) > 0.7
    for row in range(len(rows)):
        found, similarity = nearest(means, row, 4)
        assert row not in found
        assert set(kinds[found]) == {kinds[row]}
        assert (np.diff(similarity) <= 0).all()
        units = means / np.linalg.norm(means, axis=1, keepdims=True)
        assert similarity[0] == pytest.approx(units[row] @ units[found[0]])
    first, second = spread_examples(means, 2)
    assert kinds[first] != kinds[second]
    assert np.isfinite(principal_colors(np.ones((3, 2)))).all()


def test_files(tmp_path: Path) -> None:
    """GeoParquet with geometry and embeddings by id; in the report a map and quicklooks of the places named; too few
    places, and unknown ones, are errors."""
    places = pd.DataFrame(
        {"location_id": [f"p{i}" for i in range(N)], "lon": 12 + 0.01 * np.arange(N), "lat": 47.0}
    )
    store.create_store(
        tmp_path / "patches.zarr", locations=places, seasons=("a", "b"), size_m=320, per_shard=N
    )
    arrays = store.empty_shard(tmp_path / "patches.zarr", 0)
    arrays["dn10"][:] = np.random.default_rng(0).integers(200, 3000, arrays["dn10"].shape)
    store.write_shard(tmp_path / "patches.zarr", 0, arrays)
    values = two_kinds()

    def job_of(values: np.ndarray, name: str, neighbors_of: tuple[str, ...] = ()) -> SimpleNamespace:
        folder = tmp_path / name / "embeddings.zarr"
        xr.Dataset(
            {"embedding": (("location", "season", "feature"), values)},
            coords={key: ("location", places[key].to_numpy(object if key == "location_id" else float)) for key in places},
        ).to_zarr(folder, consolidated=True)  # fmt: skip
        return SimpleNamespace(
            input=SimpleNamespace(embeddings=str(folder / "zarr.json")),
            output=SimpleNamespace(
                table=str(tmp_path / name / "e.parquet"), neighbors=str(tmp_path / name / "n.json")
            ),
            params=SimpleNamespace(neighbors_of=neighbors_of),
            wildcards=SimpleNamespace(model="m", dataset="d"),
        )

    job = job_of(values, "whole")
    map_embeddings.main(job)
    table = gpd.read_parquet(job.output.table).set_index("location_id")
    assert "p4" not in table.index
    np.testing.assert_allclose(table.loc["p3", "embedding"], values[3].mean(axis=0), rtol=1e-5)
    assert table.loc["p3"].geometry.x == pytest.approx(12.03)

    def chapter(job: SimpleNamespace) -> str:
        files = {
            "store": str(tmp_path / "patches.zarr/zarr.json"),
            "embeddings/m": job.output.table,
            "neighbors/m": job.output.neighbors,
        }
        return embeddings_section(inputs.load_dataset("d", {"report": {"max_reflectance": 0.35}}, files))

    html = chapter(job)
    assert html.count("<img ") == 1 + 4 * 6  # the map; four places and five like each
    assert len(html) < 3e5
    named = job_of(values, "named", ("p7",))
    map_embeddings.main(named)
    (example,) = json.loads(Path(named.output.neighbors).read_text())["examples"]
    assert example["location_id"] == "p7" and "p7" not in [n["location_id"] for n in example["neighbors"]]
    assert {int(n["location_id"][1:]) % 2 for n in example["neighbors"]} == {1}
    assert "Most like p7" in chapter(named) and chapter(named).count("<img ") == 1 + 6
    with pytest.raises(ValueError, match=r"neighbors_of names \['p4', 'x'\], of which there is no embedding"):
        map_embeddings.main(job_of(values, "unknown", ("p4", "x")))
    with pytest.raises(ValueError, match="1 places have an embedding"):
        map_embeddings.main(job_of(np.where(np.arange(N)[:, None, None] == 1, values, np.nan), "few"))
