"""Every number of the made world: islands, ecoregions, spectra, weather, passes.

The values are set once, from general knowledge of such landscapes (sources beside them), and are
not tuned on what the pipeline makes of them. Lengths on an island are kilometers east and north of
its center; times are days; reflectance is 0–1.
"""

from dataclasses import dataclass

BIOME_NAMES = {
    1: "Tropical & Subtropical Moist Broadleaf Forests",
    2: "Tropical & Subtropical Dry Broadleaf Forests",
    4: "Temperate Broadleaf & Mixed Forests",
    5: "Temperate Conifer Forests",
    7: "Tropical & Subtropical Grasslands, Savannas & Shrublands",
    8: "Temperate Grasslands, Savannas & Shrublands",
    9: "Flooded Grasslands & Savannas",
    10: "Montane Grasslands & Shrublands",
    12: "Mediterranean Forests, Woodlands & Scrub",
    13: "Deserts & Xeric Shrublands",
}
"""Biome numbers and names as RESOLVE Ecoregions 2017 writes them; only those that occur here."""

SPECTRA = {
    # B01   B02    B03    B04    B05    B06    B07    B08    B8A    B09    B11    B12
    "broadleaf": (0.020, 0.025, 0.060, 0.030, 0.100, 0.280, 0.370, 0.400, 0.420, 0.420, 0.200, 0.090),
    "rainforest": (0.015, 0.020, 0.050, 0.025, 0.080, 0.280, 0.360, 0.380, 0.390, 0.390, 0.170, 0.070),
    "conifer": (0.015, 0.020, 0.035, 0.022, 0.060, 0.150, 0.190, 0.210, 0.220, 0.220, 0.100, 0.045),
    "grass": (0.030, 0.035, 0.080, 0.040, 0.120, 0.280, 0.340, 0.370, 0.390, 0.390, 0.230, 0.120),
    "reed": (0.025, 0.032, 0.070, 0.035, 0.105, 0.270, 0.330, 0.360, 0.370, 0.360, 0.180, 0.085),
    "crop": (0.025, 0.030, 0.075, 0.030, 0.110, 0.350, 0.450, 0.480, 0.500, 0.490, 0.210, 0.100),
    "shrub": (0.030, 0.035, 0.065, 0.045, 0.100, 0.210, 0.260, 0.290, 0.310, 0.310, 0.200, 0.110),
    "litter": (0.040, 0.050, 0.070, 0.090, 0.110, 0.130, 0.150, 0.170, 0.190, 0.200, 0.260, 0.190),
    "straw": (0.060, 0.080, 0.120, 0.160, 0.190, 0.210, 0.230, 0.250, 0.270, 0.280, 0.360, 0.270),
    "brown soil": (0.050, 0.070, 0.100, 0.130, 0.150, 0.170, 0.190, 0.210, 0.220, 0.230, 0.300, 0.250),
    "red soil": (0.030, 0.040, 0.070, 0.140, 0.170, 0.190, 0.210, 0.230, 0.240, 0.250, 0.330, 0.300),
    "mud": (0.040, 0.050, 0.070, 0.085, 0.095, 0.105, 0.110, 0.115, 0.120, 0.115, 0.110, 0.080),
    "sand": (0.120, 0.160, 0.230, 0.310, 0.340, 0.360, 0.380, 0.400, 0.410, 0.420, 0.500, 0.450),
    "snow": (0.850, 0.870, 0.880, 0.870, 0.860, 0.850, 0.840, 0.820, 0.800, 0.750, 0.120, 0.090),
    "water": (0.040, 0.040, 0.030, 0.015, 0.012, 0.010, 0.009, 0.008, 0.007, 0.006, 0.004, 0.003),
    "cloud": (0.450, 0.470, 0.480, 0.500, 0.510, 0.520, 0.530, 0.540, 0.540, 0.450, 0.380, 0.300),
}
"""Surface reflectance of pure covers in `bands.ALL_BANDS` order: rounded values of the usual shapes
(green vegetation, non-photosynthetic vegetation, soils, snow, water, thick cloud)."""


@dataclass(frozen=True)
class Cycle:
    """One growing cycle: an asymmetric double logistic of green cover."""

    rise_doy: float
    """Day of year of the steepest rise."""
    length_days: float
    """From the steepest rise to the steepest fall."""
    rise_days: float
    """Time constant of the rise; 10–90 % take 4.4 of them: two months where stands of different
    dates share a 500 m pixel, less on fields sown together."""
    fall_days: float
    weight: float = 1.0
    """Height relative to the ecoregion's cover range."""


@dataclass(frozen=True)
class Ecoregion:
    """A land cover with its spectra and its year."""

    eco_id: int
    name: str
    biome_num: int
    seat_km: tuple[float, float]
    """The ecoregion is the part of the island nearest to its seat."""
    green: str
    """Spectrum of full green cover."""
    background: tuple[tuple[str, float], ...]
    """Spectra and shares of what lies under and between the green."""
    cover_min: float
    cover_range: float
    """Green cover is cover_min outside cycles and at most cover_min + cover_range within."""
    cycles: tuple[Cycle, ...]
    texture: float
    """Relative standard deviation of brightness and of cover between 10 m pixels."""
    has_parcels: bool = False
    """Fields of about 3 ha that differ in vigor and soil brightness."""


@dataclass(frozen=True)
class Tile:
    """A Sentinel-2 tile that holds an island."""

    name: str
    """MGRS name, such as ``32TQT``."""
    epsg: int
    tile_origin: tuple[int, int]
    """Upper left corner of the real tile in meters of its UTM zone."""
    shift_60m: tuple[int, int] = (0, 0)
    """The files' window, moved by so many 60 m pixels right and down of the centered one."""
    share: float = 1.0
    """Share of the island's datatakes that are published for this tile."""


@dataclass(frozen=True)
class Island:
    """An island about 6 km wide: as much as the files of small scenes can cover."""

    name: str
    lon: float
    lat: float
    realm: str
    tiles: tuple[Tile, ...]
    relative_orbit: int
    ecoregions: tuple[Ecoregion, ...]
    peak_km: tuple[float, float]
    height_m: float
    mountain_above_m: float | None
    """Contour of the mountain polygon; None: no mountain."""
    delay_days_per_100m: float
    """Later rise with height; Hopkins' rule gives 3.3 in temperate regions."""
    temperature_range_c: float
    """Half the difference between the warmest and coldest day."""
    coldest_doy: float
    dense_doys: tuple[tuple[int, int], ...]
    """Days of year in which `dense_step_days` holds."""
    dense_step_days: int
    sparse_step_days: int
    cloudiness: tuple[str, ...]
    """Kinds of sky, drawn in shuffled blocks of these: clear, patchy, cloudy."""
    modis_gaps: tuple[float, float, float]
    """Shares of marginal, cloudy and missing pixels in the composites."""


NORTH = Island(
    name="north",
    lon=12.0,
    lat=47.3,
    realm="Palearctic",
    tiles=(
        Tile("32TQT", 32632, (699960, 5300040), share=0.9),
        Tile("33TTN", 32633, (199980, 5300040), shift_60m=(1, 0), share=0.8),
    ),
    relative_orbit=22,
    ecoregions=(
        Ecoregion(
            9001, "North Island deciduous forests", 4, (-1.7, -0.2), "broadleaf",
            (("litter", 0.8), ("brown soil", 0.2)), 0.08, 0.80, (Cycle(122, 160, 15, 20),), 0.07,
        ),
        Ecoregion(
            9002, "North Island conifer forests", 5, (1.9, 0.3), "conifer",
            (("litter", 0.7), ("brown soil", 0.3)), 0.74, 0.10, (Cycle(125, 150, 21, 27),), 0.09,
        ),
        Ecoregion(
            9003, "North Island upland steppe", 8, (0.2, 2.1), "grass",
            (("straw", 0.6), ("brown soil", 0.4)), 0.08, 0.80, (Cycle(126, 142, 15, 21),), 0.06,
        ),
        Ecoregion(
            9004, "North Island cropped lowlands", 4, (0.2, -2.1), "crop",
            (("brown soil", 0.8), ("straw", 0.2)), 0.06, 0.78,
            (Cycle(84, 84, 11, 10), Cycle(203, 84, 10, 12, 0.9)), 0.04, has_parcels=True,
        ),
    ),
    peak_km=(0.1, 1.7),
    height_m=850,
    mountain_above_m=420,
    delay_days_per_100m=3.3,
    temperature_range_c=9.5,
    coldest_doy=20,
    dense_doys=((84, 182), (232, 322)),
    dense_step_days=13,
    sparse_step_days=24,
    cloudiness=("clear", "clear", "clear", "patchy", "cloudy"),
    modis_gaps=(0.16, 0.06, 0.03),
)  # fmt: skip

TROPICAL = Island(
    name="tropical",
    lon=14.5,
    lat=-0.8,
    realm="Afrotropic",
    tiles=(Tile("33MVV", 32733, (399960, 10_000_000)),),
    relative_orbit=36,
    ecoregions=(
        Ecoregion(
            9101, "Middle Island rainforests", 1, (-1.6, 1.3), "rainforest",
            (("litter", 0.9), ("red soil", 0.1)), 0.84, 0.06, (Cycle(275, 210, 27, 36),), 0.08,
        ),
        Ecoregion(
            9102, "Middle Island savanna", 7, (1.7, 1.2), "grass",
            (("straw", 0.7), ("red soil", 0.3)), 0.10, 0.72, (Cycle(302, 178, 16, 22),), 0.08,
        ),
        Ecoregion(
            9103, "Middle Island dry forests", 2, (1.4, -1.7), "broadleaf",
            (("litter", 0.6), ("red soil", 0.4)), 0.16, 0.60, (Cycle(284, 226, 16, 22),), 0.07,
        ),
        Ecoregion(
            9104, "Middle Island flooded grasslands", 9, (-1.5, -1.5), "reed",
            (("mud", 0.8), ("straw", 0.2)), 0.10, 0.68,
            (Cycle(74, 88, 12, 12), Cycle(262, 92, 12, 12, 0.92)), 0.06,
        ),
    ),
    peak_km=(-0.6, 0.4),
    height_m=260,
    mountain_above_m=None,
    delay_days_per_100m=1.0,
    temperature_range_c=1.5,
    coldest_doy=205,
    dense_doys=((1, 366),),
    dense_step_days=15,
    sparse_step_days=15,
    cloudiness=("clear", "patchy", "patchy", "cloudy", "cloudy"),
    modis_gaps=(0.18, 0.09, 0.05),
)  # fmt: skip

SOUTH = Island(
    name="south",
    lon=18.9112,
    lat=-33.0,
    realm="Afrotropic",
    tiles=(
        Tile("34HBJ", 32734, (199980, 6_400_000), share=0.85),
        Tile("34HCJ", 32734, (300000, 6_400_000), shift_60m=(-1, 2), share=0.5),
    ),
    relative_orbit=78,
    ecoregions=(
        Ecoregion(
            9201, "South Island shrublands", 12, (-1.7, 1.2), "shrub",
            (("brown soil", 0.6), ("straw", 0.4)), 0.16, 0.70, (Cycle(132, 168, 20, 21),), 0.09,
        ),
        Ecoregion(
            9202, "South Island desert", 13, (1.6, 1.4), "shrub",
            (("sand", 0.9), ("brown soil", 0.1)), 0.04, 0.04, (Cycle(140, 90, 18, 24),), 0.05,
        ),
        Ecoregion(
            9203, "South Island montane grasslands", 10, (1.4, -1.6), "grass",
            (("straw", 0.8), ("brown soil", 0.2)), 0.08, 0.80, (Cycle(286, 176, 16, 21),), 0.06,
        ),
        Ecoregion(
            9204, "South Island deciduous forests", 4, (-1.5, -1.6), "broadleaf",
            (("litter", 0.8), ("brown soil", 0.2)), 0.10, 0.74, (Cycle(262, 212, 15, 20),), 0.07,
        ),
    ),
    peak_km=(1.2, -1.5),
    height_m=620,
    mountain_above_m=330,
    delay_days_per_100m=2.0,
    temperature_range_c=5.0,
    coldest_doy=202,
    dense_doys=((58, 160), (238, 332)),
    dense_step_days=14,
    sparse_step_days=24,
    cloudiness=("clear", "clear", "clear", "clear", "patchy", "cloudy"),
    modis_gaps=(0.10, 0.04, 0.02),
)  # fmt: skip


@dataclass(frozen=True)
class World:
    """All parameters of the made world."""

    seed: int = 20250424
    islands: tuple[Island, ...] = (NORTH, TROPICAL, SOUTH)
    modis_years: tuple[int, int] = (2019, 2023)
    """First and last year of the 16-day composites."""
    scene_years: tuple[int, int] = (2021, 2022)
    max_scenes: int | None = None
    """At most so many scenes per island (tests); None: all."""

    radius_km: float = 2.95
    """Mean radius of an island."""
    coast_relief: float = 0.025
    """Relative standard deviation of the radius around the coast."""
    window_m: int = 7200
    """Side of the square that the scene files cover, a multiple of 60 m."""

    hill_km: float = 1.25
    """Standard width of the mountain."""
    relief_m: float = 35
    relief_scale_km: float = 1.1
    lapse_rate_c_per_km: float = 6.5
    equator_temperature_c: float = 27
    cooling_c_per_degree2: float = 0.008
    """Mean temperature at sea level is equator_temperature_c - this × latitude²."""
    temperature_field_c: float = 0.5
    border_warp_km: float = 0.22
    """Standard displacement that makes the borders of ecoregions winding."""
    border_scale_km: float = 0.9
    field_scale_km: float = 2.2
    """Length scale of the smooth fields of temperature, timing and vigor."""

    timing_field_days: float = 4
    vigor_field: float = 0.05
    vigor_loss_per_100m: float = 0.035
    earlier_fall_per_100m: float = 0.5
    """The fall comes earlier with height by this share of the delay of the rise."""
    year_shift_days: float = 5
    """Standard deviation of the timing between years, common to an island."""
    ecoregion_shift_days: float = 2
    year_length_days: float = 3
    year_vigor: float = 0.05
    soil_brightening_per_100m: float = 0.02
    """Higher ground is rockier and brighter."""

    snow_temperature_c: float = -1.0
    """Half the ground is white at this temperature of the (smooth) day."""
    snow_width_c: float = 0.7
    weather_c: float = 1.2
    """Standard deviation of ten-day temperature around its annual course."""

    evi_noise: float = 0.008
    """Standard deviation of a good composite value; marginal ones have twice that and a bias."""
    marginal_bias: float = -0.01
    aqua_items: int = 3
    """Items per tile of the other platform, without files."""

    dn_noise: float = 3
    """Standard deviation of the sensor noise in DN at reflectance 0.1; it grows with the root of the
    signal. (Sentinel-2 is specified at about 6; less noise makes smaller files.)"""
    dn_step: int = 4
    """Resolution of the sensor: 12 bits over reflectance 0 to about 1.6."""
    haze: float = 0.004
    """Standard deviation of the atmospheric residual at 443 nm; falls with wavelength to the 2nd."""
    partial_every: int = 7
    """Every so many datatakes the edge of the swath crosses the island."""
    reprocessed_every: int = 23
    """Every so many datatakes there is a second processing of the same pixels."""
    offset_left_in_every: int = 3
    """Of the scenes since baseline 04.00 every so many still carries the offset of 1000."""
    n_truth_points: int = 20
    """Points per island with true NDVI."""
