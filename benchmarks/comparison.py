"""What was learned on the made world, over seeds: losses, collapse, and the scores of both probes.

    make comparison                                   # trains and evaluates, then prints
    python benchmarks/comparison.py [FOLDER]          # prints what is in FOLDER/results

Every model is shown, whatever its place. The made world shows that the code learns, not which way is better.
Losses are means over the first and the last quarter of a run, of steps whose queue is full of keys: the random
vectors that it holds before are told from a positive at once.
"""

import json
import re
import sys
from pathlib import Path
from statistics import mean

import pandas as pd

SPACES = ("all", "season", "augmentation")


def family(model: str) -> str:
    """Name of a model without its seed."""
    return re.sub(r"-s\d+$", "", model)


def training(models: Path) -> pd.DataFrame:
    """Loss in the first and the last quarter of each run, and the least spread of its spaces at the end."""
    rows = []
    for file in sorted(models.glob("*/metrics.jsonl")):
        options = json.loads((file.parent / "options.json").read_text())["options"]
        filled = options["queue_size"] // options["batch_size"] + options["log_steps"]
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        losses = [line["loss"] for line in lines if line["step"] >= filled]
        part = max(1, len(losses) // 4)
        stds = [lines[-1][f"std_{space}"] for space in SPACES if f"std_{space}" in lines[-1]]
        rows.append([family(file.parent.name), mean(losses[:part]), mean(losses[-part:]), min(stds)])
    return pd.DataFrame(rows, columns=["model", "first loss", "last loss", "least std"])


def scores(downstream: Path) -> pd.DataFrame:
    """Main metric of each model, task, probe and folds: mean over folds."""
    rows = []
    for file in sorted(downstream.glob("*/*/*.json")):
        found = json.loads(file.read_text())
        for folds, division in found["folds"].items():
            score = division["scores"][found["main_metric"]]["mean"]
            column = f"{found['task']} {found['main_metric']}, {found['probe']}, {folds}"
            rows.append([family(found["model"]), column, score])
    return pd.DataFrame(rows, columns=["model", "column", "score"])


def main() -> None:
    results = Path(sys.argv[1] if len(sys.argv) > 1 else ".") / "results"
    learned, found = training(results / "models"), scores(results / "downstream")
    if learned.empty or found.empty:
        print(f"nothing was trained and evaluated in {results}: run `make comparison`")
        return
    print("training, mean over seeds (lowest to highest)")
    for model, runs in learned.groupby("model"):
        cells = [
            f"{name} {runs[name].mean():.3f} ({runs[name].min():.3f} to {runs[name].max():.3f})"
            for name in ("first loss", "last loss", "least std")
        ]
        print(f"  {model:22s} {len(runs)} runs: " + ", ".join(cells))
    for column, part in found.groupby("column", sort=False):
        print(column + ", mean over seeds ± standard deviation between them")
        for model, runs in part.groupby("model"):
            spread = f" ± {runs['score'].std():.3f}" if len(runs) > 1 else ""
            print(f"  {model:22s} {runs['score'].mean():.3f}{spread} ({len(runs)} runs)")
    falls = (learned["last loss"] < learned["first loss"]).all()
    print(f"every loss falls: {falls}; least std of any space at the end: {learned['least std'].min():.2f}")


if __name__ == "__main__":
    main()
