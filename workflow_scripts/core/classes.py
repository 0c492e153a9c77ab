"""Classes of the published tasks: their codes, their order, and how raw codes map onto them.

The id of a class is its place in its table, whatever is present in a dataset. Sources: RESOLVE
Ecoregions 2017 (Dinerstein et al.); WWF Terrestrial Ecoregions 2001 (Olson et al.); Circumpolar
Arctic Vegetation Map, raster edition (Raynolds et al. 2019), with the five types of the SSL4Eco
paper; BigEarthNet's nomenclature of 19 classes (Sumbul et al. 2021); TreeSatAI (Ahlswede et al. 2023).
"""

from collections.abc import Mapping
from types import MappingProxyType

_BIOMES = (
    (1, "Tropical & Subtropical Moist Broadleaf Forests"),
    (2, "Tropical & Subtropical Dry Broadleaf Forests"),
    (3, "Tropical & Subtropical Coniferous Forests"),
    (4, "Temperate Broadleaf & Mixed Forests"),
    (5, "Temperate Conifer Forests"),
    (6, "Boreal Forests/Taiga"),
    (7, "Tropical & Subtropical Grasslands, Savannas & Shrublands"),
    (8, "Temperate Grasslands, Savannas & Shrublands"),
    (9, "Flooded Grasslands & Savannas"),
    (10, "Montane Grasslands & Shrublands"),
    (11, "Tundra"),
    (12, "Mediterranean Forests, Woodlands & Scrub"),
    (13, "Deserts & Xeric Shrublands"),
    (14, "Mangroves"),
)

_CORINE = (
    ("Urban fabric", ("Continuous urban fabric", "Discontinuous urban fabric")),
    ("Industrial or commercial units", ("Industrial or commercial units",)),
    ("Arable land", ("Non-irrigated arable land", "Permanently irrigated land", "Rice fields")),
    (
        "Permanent crops",
        (
            "Vineyards",
            "Fruit trees and berry plantations",
            "Olive groves",
            "Annual crops associated with permanent crops",
        ),
    ),
    ("Pastures", ("Pastures",)),
    ("Complex cultivation patterns", ("Complex cultivation patterns",)),
    (
        "Land principally occupied by agriculture, with significant areas of natural vegetation",
        ("Land principally occupied by agriculture, with significant areas of natural vegetation",),
    ),
    ("Agro-forestry areas", ("Agro-forestry areas",)),
    ("Broad-leaved forest", ("Broad-leaved forest",)),
    ("Coniferous forest", ("Coniferous forest",)),
    ("Mixed forest", ("Mixed forest",)),
    (
        "Natural grassland and sparsely vegetated areas",
        ("Natural grassland", "Sparsely vegetated areas"),
    ),
    (
        "Moors, heathland and sclerophyllous vegetation",
        ("Moors and heathland", "Sclerophyllous vegetation"),
    ),
    ("Transitional woodland, shrub", ("Transitional woodland/shrub",)),
    ("Beaches, dunes, sands", ("Beaches, dunes, sands",)),
    ("Inland wetlands", ("Inland marshes", "Peatbogs")),
    ("Coastal wetlands", ("Salt marshes", "Salines")),
    ("Inland waters", ("Water courses", "Water bodies")),
    ("Marine waters", ("Coastal lagoons", "Estuaries", "Sea and ocean")),
)
"""Class of the 19 and the CORINE classes (level 3) it is made of."""

CORINE_DROPPED = (
    "Road and rail networks and associated land",
    "Port areas",
    "Airports",
    "Mineral extraction sites",
    "Dump sites",
    "Construction sites",
    "Green urban areas",
    "Sport and leisure facilities",
    "Bare rock",
    "Burnt areas",
    "Intertidal flats",
)
"""Of BigEarthNet's 43 labels those that stand for none of the 19 classes."""

BIGEARTHNET_19: Mapping[str, str] = MappingProxyType(
    {label: name for name, labels in _CORINE for label in labels} | {name: name for name, _ in _CORINE}
)
"""Label of either nomenclature → class of the 19."""

_CAVM = (
    (1, "Barren", (1, 2, 3, 4, 5)),
    (2, "Graminoid tundra", (21, 22, 23, 24)),
    (3, "Prostrate-shrub tundra", (31, 32)),
    (4, "Erect-shrub tundra", (33, 34)),
    (5, "Wetland", (41, 42, 43)),
)
"""Type, its name, and the codes of the raster; 91 fresh water, 92 salt water, 93 glacier, 99 not arctic
and 127 no data have no type."""

_GENERA = "Abies Acer Alnus Betula Cleared Fagus Fraxinus Larix Picea Pinus Populus Prunus Pseudotsuga Quercus Tilia"

CLASS_TABLES: Mapping[str, tuple[tuple[int | str, str], ...]] = MappingProxyType(
    {
        "resolve-biomes": _BIOMES,
        # 98 is lake, which is no biome; whether the paper's fifteenth class is 99 is not verified
        "teow-biomes": (*_BIOMES, (99, "Rock and ice")),
        "cavm-types": tuple((code, name) for code, name, _ in _CAVM),
        "bigearthnet-19": tuple((name, name) for name, _ in _CORINE),
        "treesatai-genera": tuple((name, name) for name in _GENERA.split()),
    }
)
"""Code and name of each class, in the order of their ids."""

CODE_MAPS: Mapping[str, Mapping[int, int]] = MappingProxyType(
    {"cavm-types": MappingProxyType({raw: code for code, _, codes in _CAVM for raw in codes})}
)
"""Raw code → code of the class table of the same name; a code that is not there has no class."""
