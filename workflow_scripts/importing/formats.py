"""The formats of `import`, one row each."""

from collections.abc import Mapping
from types import MappingProxyType

from workflow_scripts.importing import bigearthnet, biomassters, geolifeclef, treesatai
from workflow_scripts.importing.base import Format

_AS_PUBLISHED = (
    "DN as published, surface reflectance × 10,000; no offset, of processing baselines before 04.00"
)

FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "bigearthnet": Format(bigearthnet.scan_v1, bigearthnet.read, _AS_PUBLISHED),
        "bigearthnet-v2": Format(
            bigearthnet.scan_v2,
            bigearthnet.read,
            "DN as published, surface reflectance × 10,000; taken to be without offset (not verified)",
        ),
        "treesatai": Format(
            treesatai.scan,
            treesatai.read,
            f"{_AS_PUBLISHED}; 20 m and 60 m bands resampled to 10 m by the publisher",
        ),
        "biomassters": Format(
            biomassters.scan,
            biomassters.read,
            "DN as published, surface reflectance × 10,000; taken to be without offset (not verified); 20 m bands "
            "resampled to 10 m by the publisher",
            biomassters.read_maps,
        ),
        "geolifeclef-2023": Format(
            geolifeclef.scan,
            geolifeclef.read,
            "DN = 10,000 × (published 8-bit value / 255)^2.5, clipped at 10,000 by the publisher; JPEG",
        ),
    }
)
"""Name in the configuration → how the archive is read."""
