"""Radiometric facts."""

import numpy as np
import pytest

from workflow_scripts.core import bands


@pytest.mark.parametrize(
    ("convention", "properties", "offset"),
    [
        ("earth-search", {"earthsearch:boa_offset_applied": True, "s2:processing_baseline": "05.09"}, 0),
        ("earth-search", {"earthsearch:boa_offset_applied": False, "s2:processing_baseline": "04.00"}, 1000),
        ("earth-search", {"earthsearch:boa_offset_applied": False, "s2:processing_baseline": "03.01"}, 0),
        ("earth-search", {"s2:processing_baseline": "05.09"}, -1),
        ("earth-search-c1", {}, 1000),
        ("planetary-computer", {"s2:processing_baseline": "02.12"}, 0),
        ("planetary-computer", {"s2:processing_baseline": "05.10"}, 1000),
        ("planetary-computer", {}, -1),
        ("plain", {"dn_offset": 0}, 0),
        ("plain", {}, -1),
    ],
)
def test_offset_follows_the_catalogs_own_fields(convention, properties, offset):
    decided, source = bands.dn_offset(properties, convention)
    assert decided == offset
    assert source


def test_unknown_convention_is_refused():
    with pytest.raises(ValueError, match="sentinel-hub"):
        bands.dn_offset({}, "sentinel-hub")


def test_ndvi_by_hand():
    values = bands.ndvi(np.array([3000, 0, 500]), np.array([1000, 100, 0]))
    assert values[0] == pytest.approx(0.5)
    assert np.isnan(values[1:]).all()


def test_bands_of_the_three_resolutions_are_the_twelve():
    assert set(bands.BANDS10 + bands.BANDS20 + bands.BANDS60) == set(bands.ALL_BANDS)
    assert list(bands.WAVELENGTH_NM) == list(bands.ALL_BANDS)
    for names in bands.ASSET_NAMES.values():
        assert set(names) == {*bands.ALL_BANDS, "SCL"}
