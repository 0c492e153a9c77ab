"""When the satellites pass over the made world, under which sky, and how the data are processed."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from workflow_scripts.demo.fields import generator
from workflow_scripts.demo.parameters import Island, Tile, World
from workflow_scripts.demo.vegetation import day_number

BASELINES = (("2021-03-30", "02.14"), ("2021-07-01", "03.00"), ("2022-01-25", "03.01"))
"""ESA's processing baselines: in use until the day; afterwards 04.00, which added the offset."""
OFFSET_BASELINE = "04.00"
REPROCESSED_BASELINE = "05.00"
"""Of scenes processed again. The first of them are older than 04.00 and carry the offset: the date
of a scene does not tell."""
REPROCESSED_TURN = 4
LOCAL_SOLAR_HOUR = 10.5
"""Mean local time of Sentinel-2's descending node."""


@dataclass(frozen=True)
class Sky:
    """Clouds of one datatake."""

    cover: float
    """Fraction under thick or medium cloud, before orography."""
    has_cirrus: bool
    height_m: float


@dataclass(frozen=True)
class Datatake:
    """One pass of a satellite over an island."""

    island: Island
    time: datetime
    satellite: str
    """``A`` or ``B``."""
    orbit_number: int
    sky: Sky
    swath_edge: float | None
    """Where the swath ends, as a fraction of the window's width; None: beyond the island."""
    data_east: bool
    """The data lie east of the edge."""

    @property
    def day(self) -> int:
        """Days since 1970-01-01."""
        return int(day_number(self.time.year, self.time.timetuple().tm_yday))


@dataclass(frozen=True)
class Scene:
    """One product: a datatake in one tile, processed once."""

    datatake: Datatake
    tile: Tile
    sequence: int
    baseline: str
    is_offset_applied: bool
    """Catalog's ``earthsearch:boa_offset_applied``: the provider took the offset out."""
    created: datetime

    @property
    def item_id(self) -> str:
        """Id in the manner of Earth Search, such as ``S2A_32TQT_20210605_0_L2A``."""
        take = self.datatake
        date = take.time.strftime("%Y%m%d")
        return f"S2{take.satellite}_{self.tile.name}_{date}_{self.sequence}_L2A"

    @property
    def dn_offset(self) -> int:
        """Offset that the stored pixels carry."""
        return 1000 if float(self.baseline) >= 4 and not self.is_offset_applied else 0


def sun(island: Island, time: datetime) -> tuple[float, float]:
    """Give the sun's elevation and azimuth (degrees, clockwise from north).

    Declination after Cooper (1969); solar time is taken as UTC plus longitude / 15.
    """
    day = time.timetuple().tm_yday
    declination = np.radians(23.45 * np.sin(2 * np.pi * (284 + day) / 365))
    hour = time.hour + time.minute / 60 + time.second / 3600 + island.lon / 15
    angle = np.radians(15 * (hour - 12))
    phi = np.radians(island.lat)
    sine = np.sin(phi) * np.sin(declination) + np.cos(phi) * np.cos(declination) * np.cos(angle)
    east = -np.cos(declination) * np.sin(angle)
    north = np.sin(declination) * np.cos(phi) - np.cos(declination) * np.sin(phi) * np.cos(angle)
    return float(np.degrees(np.arcsin(sine))), float(np.degrees(np.arctan2(east, north)) % 360)


def _dates(world: World, island: Island) -> list[datetime]:
    """List the days of passes: denser where `dense_doys` says."""
    first, last = world.scene_years
    time = datetime(first, 1, 3, tzinfo=UTC)
    dates = []
    while time.year <= last:
        dates.append(time)
        doy = time.timetuple().tm_yday
        is_dense = any(begin <= doy < end for begin, end in island.dense_doys)
        time += timedelta(days=island.dense_step_days if is_dense else island.sparse_step_days)
    return dates[: world.max_scenes]


def _skies(island: Island, n: int, rng: np.random.Generator) -> list[Sky]:
    """Draw n skies: the kinds in shuffled blocks, so that bad weather does not pile up."""
    kinds: list[str] = []
    while len(kinds) < n:
        kinds += rng.permutation(island.cloudiness).tolist()
    cloudy = [i for i, kind in enumerate(kinds[:n]) if kind == "cloudy"]
    skies = []
    for i, kind in enumerate(kinds[:n]):
        low, high = {"clear": (-0.03, 0.02), "patchy": (0.05, 0.2), "cloudy": (0.3, 0.9)}[kind]
        cover = rng.uniform(low, high)
        is_overcast = kind == "cloudy" and cloudy.index(i) % 3 == 1
        skies.append(
            Sky(
                cover=1.0 if is_overcast else max(cover, 0.0),
                has_cirrus=bool(kind == "patchy" and rng.random() < 0.35),
                height_m=float(rng.uniform(800, 2500)),
            )
        )
    return skies


def datatakes(world: World, island: Island) -> list[Datatake]:
    """List the passes over an island in order of time."""
    rng = generator(world.seed, island.name, "datatakes")
    dates = _dates(world, island)
    skies = _skies(island, len(dates), rng)
    takes = []
    for i, (date, sky) in enumerate(zip(dates, skies, strict=True)):
        hour = LOCAL_SOLAR_HOUR - island.lon / 15
        time = date + timedelta(seconds=round(3600 * hour + rng.uniform(-300, 300)))
        is_partial = i % world.partial_every == world.partial_every - 2
        takes.append(
            Datatake(
                island=island,
                time=time,
                satellite="AB"[i % 2],
                orbit_number=28_900 + 143 * i + 7 * island.relative_orbit,
                sky=sky,
                swath_edge=float(rng.uniform(0.25, 0.75)) if is_partial else None,
                data_east=bool(rng.random() < 0.5),
            )
        )
    return takes


def _baseline(time: datetime) -> str:
    for end, baseline in BASELINES:
        if time < datetime.fromisoformat(end).replace(tzinfo=UTC):
            return baseline
    return OFFSET_BASELINE


def scenes(world: World) -> list[Scene]:
    """List all products, grouped by tile and in order of time."""
    result = []
    for island in world.islands:
        takes = datatakes(world, island)
        for tile in island.tiles:
            rng = generator(world.seed, island.name, tile.name, "published")
            published = rng.random(len(takes)) < tile.share
            for i, take in enumerate(takes):
                if not published[i]:
                    continue
                baseline = _baseline(take.time)
                is_left_in = i % world.offset_left_in_every == 0
                is_applied = baseline == OFFSET_BASELINE and not is_left_in
                created = take.time + timedelta(hours=9)
                result.append(Scene(take, tile, 0, baseline, is_applied, created))
                turn, rest = divmod(i, world.reprocessed_every)
                if rest == REPROCESSED_TURN:
                    later = take.time + timedelta(days=420)
                    result.append(Scene(take, tile, 1, REPROCESSED_BASELINE, turn % 2 == 1, later))
    return result
