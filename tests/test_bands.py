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


def test_pixels_speak_against_a_wrong_offset():
    """Water and vegetation as they are, with an offset left in, and with one removed that was not there."""
    rng = np.random.default_rng(0)
    raw = {"B02": rng.integers(200, 900, (80, 80)), "B12": rng.integers(20, 200, (40, 40))}
    scl = (np.where(np.arange(40) < 20, 4, 6) * np.ones((40, 1))).astype(np.uint8)

    def stored(present, removed):
        dn10, dn20 = (np.full((n, side, side), 2000, np.uint16) for n, side in ((4, 80), (6, 40)))
        for band, part, names in (("B02", dn10, bands.BANDS10), ("B12", dn20, bands.BANDS20)):
            part[names.index(band)] = bands.harmonize((raw[band] + present).astype(np.uint16), removed)
        return dn10, dn20

    assert bands.offset_doubt(*stored(0, 0), scl, 0) == ""
    assert bands.offset_doubt(*stored(1000, 1000), scl, 1000) == ""
    assert "B12 over water" in bands.offset_doubt(*stored(1000, 0), scl, 0)
    assert "B02 over vegetation" in bands.offset_doubt(*stored(1000, 0), np.where(scl == 4, 4, 5), 0)
    assert "B02 over vegetation" in bands.offset_doubt(*stored(0, 1000), scl, 1000)
    assert bands.offset_doubt(*stored(0, 1000), np.full_like(scl, 5), 1000) == "", "nothing tells"
    few = np.full_like(scl, 11)
    few[:10, :15] = 4
    assert bands.offset_doubt(*stored(1000, 0), few, 0) == "", "vegetation on snow is a mistake"


@pytest.mark.parametrize(
    ("convention", "properties", "offset", "told"),
    [
        (
            "planetary-computer",
            {
                "s2:processing_baseline": "05.00",
                "s2:product_uri": "S2A_MSIL2A_20190212T192651_N0212_R013_T07HFE_20201007T160857.SAFE",
            },
            1000,
            "though s2:product_uri says 02.12",
        ),
        (
            "earth-search",
            {
                "earthsearch:boa_offset_applied": False,
                "s2:processing_baseline": "03.01",
                "s2:datatake_id": "GS2A_20220122T095321_034396_N04.00",
            },
            0,
            "though s2:datatake_id says 04.00",
        ),
        (
            "earth-search",
            {"earthsearch:boa_offset_applied": True, "s2:processing_baseline": "02.14"},
            0,
            "though s2:processing_baseline=02.14 never had one",
        ),
        (
            "earth-search-c1",
            {"s2:processing_baseline": "05.10", "earthsearch:boa_offset_applied": True},
            1000,
            "though earthsearch:boa_offset_applied=true",
        ),
        (
            "planetary-computer",
            {"s2:processing_baseline": "05.10", "s2:datatake_id": "GS2A_20240402T173901_045855_N05.11"},
            1000,
            "",
        ),
    ],
)
def test_fields_that_disagree_are_recorded_and_overruled(convention, properties, offset, told):
    decided, source = bands.dn_offset(properties, convention)
    assert decided == offset and told in source
    assert told or "though" not in source
