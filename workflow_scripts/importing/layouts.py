"""Arrays, sizes and seasons of each format, as one literal: the rules read it, too."""

LAYOUTS = {
    "bigearthnet": {
        "size_m": 1200,
        "per_shard": 512,
        "seasons": ["single"],
        "arrays": {
            "dn10": {"bands": ["B02", "B03", "B04", "B08"], "side_px": 120},
            "dn20": {"bands": ["B05", "B06", "B07", "B8A", "B11", "B12"], "side_px": 60},
            "dn60": {"bands": ["B01", "B09"], "side_px": 20},
        },
    },
    "bigearthnet-v2": {
        "size_m": 1200,
        "per_shard": 512,
        "seasons": ["single"],
        "arrays": {
            "dn10": {"bands": ["B02", "B03", "B04", "B08"], "side_px": 120},
            "dn20": {"bands": ["B05", "B06", "B07", "B8A", "B11", "B12"], "side_px": 60},
            "dn60": {"bands": ["B01", "B09"], "side_px": 20},
        },
    },
    "treesatai": {
        "size_m": 60,
        "per_shard": 4096,
        "seasons": ["single"],
        # all resampled to 10 m by the publisher, in the order of the files
        "arrays": {
            "dn10": {
                "bands": ["B02", "B03", "B04", "B08", "B05", "B06", "B07", "B8A", "B11", "B12", "B01", "B09"],
                "side_px": 6,
            },
        },
    },
    "biomassters": {
        "size_m": 2560,
        "per_shard": 16,
        # month numbers of the files count from September
        "seasons": [
            "september",
            "october",
            "november",
            "december",
            "january",
            "february",
            "march",
            "april",
            "may",
            "june",
            "july",
            "august",
        ],
        "arrays": {
            "dn10": {
                "bands": ["B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"],
                "side_px": 256,
            },
        },
        "label_maps": {"agbm": {"side_px": 256, "units": "Mg ha-1", "long_name": "above-ground biomass"}},
    },
    "geolifeclef-2023": {
        "size_m": 1280,
        "per_shard": 512,
        "seasons": ["single"],
        "arrays": {"dn10": {"bands": ["B02", "B03", "B04", "B08"], "side_px": 128}},
    },
}
"""Format → side of a patch (m), images of how many places make a shard, seasons, the pixel arrays, and the targets
with y and x where it has some (float32, NaN where missing)."""
