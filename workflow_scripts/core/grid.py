"""Places on the Earth: sampling cells, UTM zones, Sentinel-2 and MODIS tiles, patch footprints.

The sampling grid is Major-TOM's (Francis and Czerkawski 2024, github.com/ESA-PhiLab/Major-TOM),
with two choices of our own: a location is the center of its cell, and a point on an edge belongs
to the cell above or right of it.
"""

from functools import cache

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike
from pyproj import Transformer

EARTH_RADIUS_M = 6_378_137.0
"""Radius of Major-TOM's sphere."""
MEAN_RADIUS_KM = 6371.0088
"""Mean Earth radius for distances (IUGG)."""
MAX_LATITUDE = 85.0
"""Rows whose south edge lies beyond this latitude hold no cells."""

_ECCENTRICITY2 = 0.00669437999014
"""Squared first eccentricity of WGS 84."""

MODIS_RADIUS_M = 6_371_007.181
MODIS_TILE_M = 1_111_950.5196666666
"""Side of a tile of the MODIS sinusoidal grid, 36 × 18 tiles around the Earth."""
MODIS_COMPOSITES_PER_YEAR = 23
"""Composites of 16 days (MOD13, MYD13)."""
MODIS_CRS = "+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R=6371007.181 +units=m +no_defs"

MGRS_TILE_M = 109_800
"""Side of a Sentinel-2 tile: a 100 km MGRS square and the overlap to its right and below."""
ORIGIN_STEP_M = 20
"""Patches begin on the 20 m lines of their UTM zone."""

_MGRS_COLUMNS = ("ABCDEFGH", "JKLMNPQR", "STUVWXYZ")
_MGRS_ROWS = "ABCDEFGHJKLMNPQRSTUV"
_MGRS_BANDS = "CDEFGHJKLMNPQRSTUVWX"


# ---- Major-TOM cells -------------------------------------------------------------------------


def n_rows(spacing_m: float) -> int:
    """Give the number of rows from pole to pole."""
    if not 1 <= spacing_m <= 2_000_000:
        raise ValueError(f"spacing_m = {spacing_m!r} is outside 1 to 2,000,000 m")
    return int(np.ceil(np.pi * EARTH_RADIUS_M / spacing_m))


def n_columns(row: ArrayLike, spacing_m: float) -> np.ndarray:
    """Give the number of columns of each row, from the latitude of its south edge."""
    south = np.radians(np.asarray(row, float) * (180 / n_rows(spacing_m)))
    return np.ceil(2 * np.pi * EARTH_RADIUS_M * np.cos(south) / spacing_m).astype(np.int64)


def first_column(count: np.ndarray) -> np.ndarray:
    """Give the first column of rows with `count` columns.

    It begins at 180° west, or, as in Major-TOM, the last one does where rounding in its
    ``linspace`` puts the antimeridian east: that cell is then called R and not L.
    """
    count = np.asarray(count)
    shifted = (count % 2 == 0) & ((count // 2) * (360 / count) - 180 < 0)
    return -(count // 2) + shifted


def row_range(spacing_m: float) -> tuple[int, int]:
    """Give the first and last row within `MAX_LATITUDE`."""
    n = n_rows(spacing_m)
    rows = np.arange(-(n // 2), n - n // 2)
    kept = rows[np.abs(rows * (180 / n)) <= MAX_LATITUDE]
    return int(kept[0]), int(kept[-1])


def cell_ids(row: ArrayLike, column: ArrayLike) -> pa.Array:
    """Name cells: row 412 north, column 87 left of Greenwich is ``412U_87L``."""

    def name(number: ArrayLike, letters: str) -> pa.Array:
        number = np.asarray(number)
        letter = np.where(number >= 0, letters[0], letters[1])
        return pc.binary_join_element_wise(
            pc.cast(pa.array(np.abs(number)), pa.string()), pa.array(letter), ""
        )

    return pc.binary_join_element_wise(name(row, "UD"), name(column, "RL"), "_")


def cells(spacing_m: float, *, bounds: tuple[float, float, float, float] | None = None) -> pd.DataFrame:
    """List the cells of the grid, row by row from the south.

    Parameters
    ----------
    spacing_m : side of a cell in meters
    bounds : west, south, east, north in degrees; only cells whose center lies in it.
        West may be larger than east: the box then crosses the antimeridian.

    Returns
    -------
    DataFrame with `cell_id`, `row`, `col`, center `lon` and `lat`, south-west corner `west` and
    `south`, size `dlon` and `dlat`, all in degrees
    """
    first, last = row_range(spacing_m)
    dlat = 180 / n_rows(spacing_m)
    rows = np.arange(first, last + 1)
    if bounds is not None:
        centers = (rows + 0.5) * dlat
        rows = rows[(centers >= bounds[1]) & (centers <= bounds[3])]
    counts = n_columns(rows, spacing_m)
    begin = first_column(counts)
    stop = begin + counts
    if bounds is not None and bounds[0] <= bounds[2]:
        # only columns near the box, where it is far from those that lie across the antimeridian
        is_far = bounds[0] > -180 + 360 / counts
        near = np.floor(np.outer([bounds[0], bounds[2]], counts / 360)).astype(np.int64)
        begin = np.where(is_far, np.maximum(begin, near[0] - 1), begin)
        stop = np.maximum(np.where(is_far, np.minimum(stop, near[1] + 2), stop), begin)
    n = stop - begin
    row = np.repeat(rows, n)
    column = np.arange(row.size) - np.repeat(np.cumsum(n) - n - begin, n)
    dlon = 360 / np.repeat(counts, n)
    west = column * dlon
    lon = west + dlon / 2
    lon = np.where(lon >= 180, lon - 360, lon)
    frame = {"row": row, "col": column, "lon": lon, "lat": (row + 0.5) * dlat}
    frame |= {"west": west, "south": row * dlat, "dlon": dlon, "dlat": np.full(row.size, dlat)}
    if bounds is not None:
        inside = (lon >= bounds[0]) & (lon <= bounds[2])
        if bounds[0] > bounds[2]:
            inside = (lon >= bounds[0]) | (lon <= bounds[2])
        frame = {name: values[inside] for name, values in frame.items()}
    result = pd.DataFrame(frame)
    ids = cell_ids(result["row"], result["col"])
    result.insert(0, "cell_id", pd.array(ids, dtype="string[pyarrow]"))
    return result


def cell_area_km2(frame: pd.DataFrame) -> np.ndarray:
    """Give the true area of cells (`south`, `dlat`, `dlon` as from `cells`) on the WGS 84 ellipsoid."""
    south = frame["south"].to_numpy()
    height = equal_area_height_km(south + frame["dlat"].to_numpy()) - equal_area_height_km(south)
    return EARTH_RADIUS_M / 1000 * np.radians(frame["dlon"].to_numpy()) * height


def cell_at(lon: ArrayLike, lat: ArrayLike, spacing_m: float, *, majortom_edges: bool = False) -> np.ndarray:
    """Name the cell that holds each point.

    Parameters
    ----------
    lon, lat : degrees, ±180 and ±90
    spacing_m : side of a cell in meters
    majortom_edges : put a point on an edge into the cell below or left, as Major-TOM's lookup does

    Returns
    -------
    object array of ids; "" beyond the rows within `MAX_LATITUDE`
    """
    lon, lat = np.atleast_1d(np.asarray(lon, float)), np.atleast_1d(np.asarray(lat, float))
    check_coordinates(lon, lat)

    def index(position: np.ndarray, size: np.ndarray | float) -> np.ndarray:
        quotient = position / size
        if majortom_edges:
            return np.ceil(quotient).astype(np.int64) - 1
        return np.floor(quotient).astype(np.int64)

    row = index(lat, 180 / n_rows(spacing_m))
    count = n_columns(row, spacing_m)
    column = index(lon, 360 / count)
    start = first_column(count)
    column = np.mod(column - start, count) + start
    first, last = row_range(spacing_m)
    ids = np.asarray(cell_ids(row, column).to_pylist(), object)
    return np.where((row >= first) & (row <= last), ids, "")


def parse_cell(cell_id: str) -> tuple[int, int]:
    """Give row and column of a cell id."""
    try:
        row, column = cell_id.split("_")
        signs = {"U": 1, "D": -1, "R": 1, "L": -1}
        if row[-1] not in "UD" or column[-1] not in "RL":
            raise KeyError
        return int(row[:-1]) * signs[row[-1]], int(column[:-1]) * signs[column[-1]]
    except (KeyError, ValueError, IndexError):
        raise ValueError(f"{cell_id!r} is not a cell id such as '229U_27R'") from None


def cell_center(cell_id: str, spacing_m: float) -> tuple[float, float]:
    """Give longitude and latitude of a cell's center, in degrees."""
    row, column = parse_cell(cell_id)
    lon = (column + 0.5) * 360 / int(n_columns(row, spacing_m))
    return (lon - 360 if lon >= 180 else lon), (row + 0.5) * 180 / n_rows(spacing_m)


# ---- points on the sphere --------------------------------------------------------------------


def check_coordinates(lon: ArrayLike, lat: ArrayLike, ids: ArrayLike | None = None) -> None:
    """Raise ValueError, naming the first offenders, unless all points lie on the Earth."""
    lon, lat = np.asarray(lon, float), np.asarray(lat, float)
    bad = np.flatnonzero(~((np.abs(lon) <= 180) & (np.abs(lat) <= 90)))
    if bad.size:
        names = np.asarray(ids, object)[bad[:5]] if ids is not None else bad[:5]
        listed = ", ".join(
            f"{name!s}: lon {lon[i]:g}, lat {lat[i]:g}" for name, i in zip(names, bad[:5], strict=True)
        )
        raise ValueError(
            f"{bad.size} of {lon.size} points lie outside lon ±180, lat ±90 degrees ({listed}). "
            "Are longitude and latitude swapped, or in meters?"
        )


def sphere_xyz(lon: ArrayLike, lat: ArrayLike) -> np.ndarray:
    """Give points on the unit sphere, shape (n, 3)."""
    lon, lat = np.radians(np.asarray(lon, float)), np.radians(np.asarray(lat, float))
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def great_circle_km(lon1: ArrayLike, lat1: ArrayLike, lon2: ArrayLike, lat2: ArrayLike) -> np.ndarray:
    """Give the distance on a sphere of mean Earth radius, in kilometers."""
    chord = np.linalg.norm(sphere_xyz(lon1, lat1) - sphere_xyz(lon2, lat2), axis=-1)
    return 2 * MEAN_RADIUS_KM * np.arcsin(np.clip(chord / 2, 0, 1))


def equal_area_height_km(lat: ArrayLike) -> np.ndarray:
    """Give the height of parallels on the equal-area cylinder around the WGS 84 ellipsoid, in km.

    The zone between two parallels has the area of the cylinder between their heights (Snyder 1987,
    Map Projections, eq. 3-12 and 10-15).
    """
    sine, e = np.sin(np.radians(np.asarray(lat, float))), np.sqrt(_ECCENTRICITY2)
    q = (1 - _ECCENTRICITY2) * (sine / (1 - _ECCENTRICITY2 * sine**2) + np.arctanh(e * sine) / e)
    return EARTH_RADIUS_M / 1000 * q / 2


def compact_order(lon: ArrayLike, lat: ArrayLike, *, bits: int = 20) -> np.ndarray:
    """Order points along a Hilbert curve so that neighbors in the order are neighbors in space.

    The curve runs over an equal-area cylinder (longitude, sine of latitude), so it treats all
    latitudes alike. Position along the curve depends on the point alone.

    Returns
    -------
    integer array, shape (n,): the permutation that sorts the points
    """
    return np.argsort(hilbert_index(lon, lat, bits=bits), kind="stable")


def hilbert_index(lon: ArrayLike, lat: ArrayLike, *, bits: int = 20) -> np.ndarray:
    """Give each point's position along the Hilbert curve of `compact_order` (Skilling 2004)."""
    lon, lat = np.asarray(lon, float), np.asarray(lat, float)
    size = 1 << bits
    x = np.clip(((lon + 180) / 360 * size).astype(np.int64), 0, size - 1)
    y = np.clip(((np.sin(np.radians(lat)) + 1) / 2 * size).astype(np.int64), 0, size - 1)
    index = np.zeros(x.shape, np.int64)
    step = size >> 1
    while step:
        right, up = (x & step) > 0, (y & step) > 0
        index += step * step * ((3 * right) ^ up)
        flip = ~up & right
        x, y = (
            np.where(flip, step - 1 - (x & (step - 1)), x & (step - 1)),
            np.where(flip, step - 1 - (y & (step - 1)), y & (step - 1)),
        )
        x, y = np.where(up, x, y), np.where(up, y, x)
        step >>= 1
    return index


# ---- UTM and Sentinel-2 tiles ----------------------------------------------------------------


def utm_zone(lon: ArrayLike, lat: ArrayLike) -> np.ndarray:
    """Give the UTM zone, 1 to 60, with the exceptions for Norway and Svalbard; 180 degrees is in zone 1."""
    lon, lat = np.asarray(lon, float), np.asarray(lat, float)
    zone = np.floor((lon + 180) / 6).astype(int) % 60 + 1
    zone = np.where((lat >= 56) & (lat < 64) & (lon >= 3) & (lon < 12), 32, zone)
    svalbard = (lat >= 72) & (lat < 84) & (lon >= 0) & (lon < 42)
    return np.where(svalbard, 31 + 2 * np.digitize(lon, [9, 21, 33]), zone)


def utm_epsg(lon: ArrayLike, lat: ArrayLike) -> np.ndarray:
    """Give the EPSG code of the UTM zone, 326xx north of the equator and on it, else 327xx."""
    return utm_zone(lon, lat) + np.where(np.asarray(lat, float) >= 0, 32600, 32700)


@cache
def _transformer(source: int | str, target: int | str) -> Transformer:
    return Transformer.from_crs(source, target, always_xy=True)


def project(lon: ArrayLike, lat: ArrayLike, epsg: int) -> tuple[np.ndarray, np.ndarray]:
    """Project degrees to meters of one CRS."""
    return _transformer(4326, int(epsg)).transform(lon, lat)


def unproject(x: ArrayLike, y: ArrayLike, epsg: int) -> tuple[np.ndarray, np.ndarray]:
    """Bring meters of one CRS back to degrees."""
    return _transformer(int(epsg), 4326).transform(x, y)


def _square_corner(x: float, y: float, *, south: bool) -> tuple[int, int]:
    """Upper left corner of the tile of the 100 km square at x, y: on the zone's 60 m lattice."""
    left = int(x // 60 * 60)
    if south:
        return left, int(10_000_000 - (10_000_000 - y - 100_000) // 60 * 60)
    return left, int(-(-(y + 100_000) // 60) * 60)


def mgrs_tile_bounds(tile: str) -> tuple[int, float, float, float, float]:
    """Give EPSG code, xmin, ymin, xmax and ymax (meters) of a Sentinel-2 tile such as ``32TMT``.

    The upper left corner is the corner of the 100 km square, moved outward to the 60 m lattice
    that counts from x = 0 and from the equator.
    """
    try:
        zone, band, column, row = int(tile[:-3]), tile[-3], tile[-2], tile[-1]
        x = 100_000 * (_MGRS_COLUMNS[(zone - 1) % 3].index(column) + 1)
        south = _MGRS_BANDS.index(band) < 10
        if not 1 <= zone <= 60:
            raise ValueError
        first = (_MGRS_ROWS.index(row) - (5 if zone % 2 == 0 else 0)) % 20 * 100_000
    except ValueError:
        raise ValueError(f"{tile!r} is not an MGRS tile such as '32TMT'") from None
    latitude = -80 + 8 * _MGRS_BANDS.index(band)
    top = 84 if band == "X" else latitude + 8
    epsg = (32700 if south else 32600) + zone
    _, middle = project(6 * zone - 183, (latitude + top) / 2, epsg)
    y = first + round((middle - first - 50_000) / 2_000_000) * 2_000_000
    left, upper = _square_corner(x, y, south=south)
    return epsg, left, upper - MGRS_TILE_M, left + MGRS_TILE_M, upper


def _square_tiles(zone: int, south: bool, column: int, row: int) -> list[str]:
    """Names of the tile of a 100 km square; two where it crosses a latitude band."""
    if not 1 <= column <= 8:
        return []
    letters = _MGRS_COLUMNS[(zone - 1) % 3][column - 1]
    letters += _MGRS_ROWS[(row + (5 if zone % 2 == 0 else 0)) % 20]
    epsg = (32700 if south else 32600) + zone
    corners = unproject([column * 1e5, column * 1e5 + 1e5] * 2, [row * 1e5] * 2 + [row * 1e5 + 1e5] * 2, epsg)
    low, high = np.min(corners[1]), np.max(corners[1])
    first, last = (int(np.clip((lat + 80) // 8, 0, 19)) for lat in (low + 1e-6, high - 1e-6))
    if not south:
        first, last = max(first, 10), max(last, 10)
    else:
        first, last = min(first, 9), min(last, 9)
    return [f"{zone:02d}{_MGRS_BANDS[i]}{letters}" for i in range(first, last + 1)]


@cache
def _squares(zone: int, south: bool, column: int, row: int) -> tuple[str, ...]:
    return tuple(_square_tiles(zone, south, column, row))


def mgrs_tiles(lon: ArrayLike, lat: ArrayLike, size_m: float) -> list[list[str]]:
    """List, for each point, the Sentinel-2 tiles that may hold its whole patch.

    Tiles of the point's own UTM zone and of the neighboring ones, where tiles reach over the zone
    border. Where a 100 km square crosses a latitude band both names are given: which of them the
    catalog uses depends on the square.

    Parameters
    ----------
    lon, lat : degrees
    size_m : side of the patch in meters
    """
    lon, lat = np.atleast_1d(np.asarray(lon, float)), np.atleast_1d(np.asarray(lat, float))
    found: list[list[str]] = [[] for _ in lon]
    half = size_m / 2
    own = utm_zone(lon, lat)
    for shift in (0, -1, 1):
        zones = (own + shift - 1) % 60 + 1
        for south in (False, True):
            for zone in np.unique(zones):
                rows = np.flatnonzero((zones == zone) & ((lat < 0) == south))
                if rows.size == 0:
                    continue
                epsg = (32700 if south else 32600) + int(zone)
                x, y = project(lon[rows], lat[rows], epsg)
                for i, px, py in zip(rows, np.atleast_1d(x), np.atleast_1d(y), strict=True):
                    if not (90_000 < px < 910_000):
                        continue
                    found[i] += _tiles_holding(int(zone), south, px, py, half, own=shift == 0)
    return [list(dict.fromkeys(tiles)) for tiles in found]


def _tiles_holding(zone: int, south: bool, x: float, y: float, half: float, *, own: bool) -> list[str]:
    tiles = []
    for column in {int(x // 1e5), int((x - 9_800) // 1e5)}:
        for row in {int(y // 1e5), int((y + 9_800) // 1e5)}:
            left, upper = _square_corner(column * 1e5, row * 1e5, south=south)
            holds = left + half <= x <= left + MGRS_TILE_M - half
            holds &= upper - MGRS_TILE_M + half <= y <= upper - half
            if holds and (own or _reaches_zone(zone, south, column, row)):
                tiles += _squares(zone, south, column, row)
    return sorted(tiles)


@cache
def _reaches_zone(zone: int, south: bool, column: int, row: int) -> bool:
    """Whether a 100 km square of a zone overlaps the zone itself (else no tile is made of it)."""
    epsg = (32700 if south else 32600) + zone
    x = np.array([0, 0.5, 1, 0, 1, 0, 0.5, 1]) * 1e5 + column * 1e5
    y = np.array([0, 0, 0, 0.5, 0.5, 1, 1, 1]) * 1e5 + row * 1e5
    lon, lat = unproject(x, y, epsg)
    return bool(np.any(utm_zone(np.clip(lon, -180, 180), np.clip(lat, -90, 90)) == zone))


# ---- patches ---------------------------------------------------------------------------------


def patch_origin(x: ArrayLike, y: ArrayLike, size_m: int) -> tuple[np.ndarray, np.ndarray]:
    """Give a patch's upper left corner: the 20 m line nearest to the one that centers the patch.

    Parameters
    ----------
    x, y : the location, meters of a UTM zone
    size_m : side of the patch, a multiple of 20 m

    Returns
    -------
    origin_x, origin_y : meters; the patch center lies within 10 m of x and y
    """
    if size_m <= 0 or size_m % ORIGIN_STEP_M:
        raise ValueError(f"patches.size_m = {size_m!r} is not a positive multiple of 20 m")
    step = ORIGIN_STEP_M
    origin_x = np.round((np.asarray(x, float) - size_m / 2) / step) * step
    origin_y = np.round((np.asarray(y, float) + size_m / 2) / step) * step
    return origin_x, origin_y


def n_pixels(size_m: int, resolution_m: int) -> int:
    """Give the side of a patch in pixels; at 60 m that of the window that covers it anywhere."""
    if resolution_m == 60:
        return -(-(size_m + 40) // 60)
    return size_m // resolution_m


def window60(
    origin_x: float, origin_y: float, size_m: int, file_origin: tuple[float, float]
) -> tuple[float, float, int]:
    """Give the 60 m window that covers a patch, on the lattice of the file it is read from.

    Parameters
    ----------
    origin_x, origin_y : upper left corner of the patch, meters
    size_m : side of the patch
    file_origin : upper left corner of the 60 m file, from its own transform

    Returns
    -------
    origin60_x, origin60_y, n : upper left corner and side in pixels, ceil((size_m + 40) / 60)
    """
    left = file_origin[0] + np.floor((origin_x - file_origin[0]) / 60) * 60
    upper = file_origin[1] - np.floor((file_origin[1] - origin_y) / 60) * 60
    return float(left), float(upper), n_pixels(size_m, 60)


# ---- MODIS sinusoidal grid -------------------------------------------------------------------


def modis_pixel(lon: ArrayLike, lat: ArrayLike, n: int = 2400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give tile name (``h18v04``), row and column of the pixel that holds each point.

    Parameters
    ----------
    lon, lat : degrees
    n : pixels per tile side: 2400 at 500 m, 4800 at 250 m
    """
    lon, lat = np.atleast_1d(np.asarray(lon, float)), np.atleast_1d(np.asarray(lat, float))
    x = MODIS_RADIUS_M * np.radians(lon) * np.cos(np.radians(lat))
    y = MODIS_RADIUS_M * np.radians(lat)
    across = (x + 18 * MODIS_TILE_M) / MODIS_TILE_M
    down = (9 * MODIS_TILE_M - y) / MODIS_TILE_M
    h = np.clip(np.floor(across), 0, 35).astype(int)
    v = np.clip(np.floor(down), 0, 17).astype(int)
    column = np.clip(np.floor((across - h) * n), 0, n - 1).astype(int)
    row = np.clip(np.floor((down - v) * n), 0, n - 1).astype(int)
    names = np.array([f"h{a:02d}v{b:02d}" for a, b in zip(h, v, strict=True)], object)
    return names, row, column


def modis_tile(lon: ArrayLike, lat: ArrayLike) -> np.ndarray:
    """Name the sinusoidal tile of each point."""
    return modis_pixel(lon, lat)[0]


def modis_tile_origin(tile: str) -> tuple[float, float]:
    """Give the upper left corner of a sinusoidal tile, meters of `MODIS_CRS`."""
    return (int(tile[1:3]) - 18) * MODIS_TILE_M, (9 - int(tile[4:6])) * MODIS_TILE_M
