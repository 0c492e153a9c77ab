"""The example of docs/phenology.md runs and gives what it says."""

import re

import numpy as np


def test_example_of_the_page_runs(request):
    text = (request.config.rootpath / "docs" / "phenology.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    names = {}
    exec(compile(example, "docs/phenology.md", "exec"), names)
    cycles = names["cycles"]
    assert cycles["location_id"].eq("meadow").all() and len(cycles) == 4
    assert names["arrays"]["greenup"].dims == ("location", "year", "cycle")
    assert np.isfinite(names["curve"]["curve"]).all()
