"""Speed and scores of the probes on made embeddings of the size of the paper's Biomes task.

    .venv/bin/python benchmarks/probes.py [--locations 52000 --features 2048 --reference-folds 10 --paper-folds 3 --seed 3]

Prints, for random folds: the time of `fast`, of the k-NN probe and of a plain minibatch loop; macro F1 of each; the
largest difference in macro F1 of `paper` from the plain loop; peak memory. Ends with lines ``CLAIM <name> <measured> >= <target>``
of what was run (``<=`` where less is better). The plain loop is written here, on torch's
own loss, autograd and AdamW, with the published settings (batches of 256, learning rate 1e-3, stop after 10 epochs
without a lower validation loss, the best weights kept) and the whole set in memory; once with torch's loader as in the
published loop, and once with indexed batches, which spares it the loader.
It shares the folds, their validation parts and the random draws with ours, so that the difference from `paper` is that
of two programs and not of two seeds. Where `--reference-folds` is less than all,
its time is scaled by the number of folds, and scores are compared on those folds. `--repeat-loop` runs it once more with
other random draws: how far the loop is from itself.
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import f1_score
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pretrain.downstream import knn_probe, linear_probe
from pretrain.downstream.folds import Folds, make_folds
from pretrain.downstream.task_data import TaskData
from pretrain.downstream.tasks import Task


def make_embeddings(n: int, n_features: int, n_classes: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw embeddings that resemble a network's: correlated, not negative, classes uneven and overlapping.

    Returns
    -------
    float32 (n, n_features), class ids (n,)
    """
    rng = np.random.default_rng(seed)
    shares = np.arange(1, n_classes + 1) ** -0.8
    ids = rng.choice(n_classes, n, p=shares / shares.sum())
    n_latent = 96
    spread = np.arange(1, n_latent + 1) ** -0.5
    centers = 0.25 * rng.normal(size=(n_classes, n_latent))
    mixture = (rng.normal(size=(n_latent, n_features)) / np.sqrt(np.sum(spread**2))).astype(np.float32)
    features = np.empty((n, n_features), np.float32)
    for first in range(0, n, 8192):
        rows = slice(first, first + 8192)
        latent = (centers[ids[rows]] + rng.normal(size=(len(ids[rows]), n_latent))) * spread
        values = latent.astype(np.float32) @ mixture
        values += 0.3 * rng.standard_normal(values.shape, dtype=np.float32)
        np.maximum(values, 0, out=features[rows])
    features *= 0.4 / features.mean()
    return features, ids


def plain_loop(
    data: TaskData,
    ids: np.ndarray,
    folds: Folds,
    *,
    fold: int,
    share: float,
    seed: int,
    has_loader: bool = False,
) -> np.ndarray:
    """Train one fold's head batch by batch and give the classes of its tested rows.

    With a loader, torch's collects each batch row by row, as in the published loop; without, batches are indexed.
    """
    fit_rows, held_rows = folds.split_validation(fold, share=share, seed=seed)
    draws = torch.Generator().manual_seed(seed + fold)
    x, y = torch.from_numpy(data.features), torch.from_numpy(ids)
    x_fit, y_fit, x_held, y_held = x[fit_rows], y[fit_rows], x[held_rows], y[held_rows]
    head = torch.nn.Linear(x.shape[1], data.targets.shape[1])
    with torch.no_grad():
        for parameter in (head.weight, head.bias):
            parameter.uniform_(-(x.shape[1] ** -0.5), x.shape[1] ** -0.5, generator=draws)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3)
    measure = torch.nn.CrossEntropyLoss()
    loader = DataLoader(TensorDataset(x_fit, y_fit), batch_size=256, shuffle=True)

    def batches() -> Iterator[Sequence[torch.Tensor]]:
        if has_loader:
            yield from loader
        else:
            for rows in torch.randperm(len(x_fit), generator=draws).split(256):
                yield x_fit[rows], y_fit[rows]

    lowest, waited, kept = float("inf"), 0, None
    for _ in range(1000):
        for x_batch, y_batch in batches():
            optimizer.zero_grad()
            measure(head(x_batch), y_batch).backward()
            optimizer.step()
        with torch.no_grad():
            held_loss = measure(head(x_held), y_held).item()
        waited += 1
        if held_loss < lowest:
            lowest, waited = held_loss, 0
            kept = [p.detach().clone() for p in head.parameters()]
        if waited == 10:
            break
    with torch.no_grad():
        return (x[folds.test(fold)] @ kept[0].T + kept[1]).argmax(dim=1).numpy()


def timed(function: Callable[[], Any]) -> tuple[Any, float, float]:
    """Run; give the result, wall seconds and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = function()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--locations", type=int, default=52_000)
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--classes", type=int, default=15)
    parser.add_argument("--folds", type=int, default=10)
    parser.add_argument("--reference-folds", type=int, default=10)
    parser.add_argument("--loader-folds", type=int, default=2)
    parser.add_argument("--paper-folds", type=int, default=3)
    parser.add_argument("--repeat-loop", action="store_true")
    parser.add_argument("--seed", type=int, default=3)
    options = parser.parse_args()
    seed = options.seed
    print(f"{options}, {torch.get_num_threads()} threads")
    features, ids = make_embeddings(options.locations, options.features, options.classes, seed=seed)
    rng = np.random.default_rng(seed)
    place = np.array([f"p{i:06d}" for i in range(len(ids))], object)
    lon, lat = rng.uniform(-180, 180, len(ids)), np.degrees(np.arcsin(rng.uniform(-0.8, 0.9, len(ids))))
    settings = {"dataset": "made", "target": "y", "kind": "classification"}
    settings |= {"classes": list(range(options.classes)), "folds": options.folds}
    fast, paper = (Task.from_settings("made", {**settings, "mode": mode}) for mode in ("fast", "paper"))
    targets = np.eye(options.classes, dtype=np.float32)[ids]
    data = TaskData(place, lon, lat, features, targets, {}, {})
    folds = make_folds(
        place, ids, lon=lon, lat=lat, n_folds=options.folds, block_km=100, seed=seed
    )[0]  # fmt: skip

    def macro(chosen: np.ndarray, fold: int) -> float:
        return 100 * f1_score(ids[folds.test(fold)], chosen, average="macro", zero_division=0)

    every = range(folds.n_folds)
    found, wall, cpu = timed(
        lambda: linear_probe.predict_fast(data, [(folds, fold) for fold in every], fast, seed=seed)
    )
    f1_fast = np.array([macro(values.argmax(axis=1), fold) for fold, (values, _) in enumerate(found)])
    evaluations = [fit["n_evaluations"] for _, fit in found]
    penalties = sorted({round(fit["penalty"], 5) for _, fit in found})
    print(f"fast, {folds.n_folds} folds: {wall:.1f} s, CPU {cpu:.1f} s; macro F1 {f1_fast.mean():.2f}")
    print(f"  evaluations per fold {min(evaluations)} to {max(evaluations)}, penalties {penalties}")
    (_, found), knn_wall, knn_cpu = timed(lambda: knn_probe.predict_divisions(data, [folds], fast, seed=seed))
    f1_knn = [macro(found[0].values[folds.test(fold)].argmax(axis=1), fold) for fold in every]
    print(
        f"k-NN, k chosen in each fold: {knn_wall:.1f} s, CPU {knn_cpu:.1f} s; macro F1 {np.mean(f1_knn):.2f}"
    )
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory {memory:.2f} GiB")
    claims = [f"knn_s {knn_wall:.1f} <= 180", f"memory_gib {memory:.2f} <= 4"]
    fast_wall, fast_cpu = wall, cpu
    if options.loader_folds:
        some = range(options.loader_folds)
        _, loader_wall, loader_cpu = timed(
            lambda: [
                plain_loop(data, ids, folds, fold=f, share=paper.validation_share, seed=seed, has_loader=True)
                for f in some
            ]
        )
        scale = folds.n_folds / len(some)
        print(
            f"published loop with torch's loader, {len(some)} folds: {loader_wall:.1f} s, CPU {loader_cpu:.1f} s"
        )
        print(
            f"fast is {scale * loader_wall / fast_wall:.1f} times as fast by the clock, "
            f"{scale * loader_cpu / fast_cpu:.1f} by CPU time"
        )
        claims.append(f"fast_vs_published_loop {scale * loader_wall / fast_wall:.1f} >= 4")
    if options.reference_folds:
        some = range(options.reference_folds)
        plain, plain_wall, plain_cpu = timed(
            lambda: [
                plain_loop(data, ids, folds, fold=f, share=paper.validation_share, seed=seed) for f in some
            ]
        )
        f1_plain = np.array([macro(chosen, fold) for fold, chosen in enumerate(plain)])
        scale = folds.n_folds / len(some)
        print(
            f"plain loop, {len(some)} folds: {plain_wall:.1f} s, CPU {plain_cpu:.1f} s; macro F1 {f1_plain.mean():.2f}"
        )
        print(
            f"fast is {scale * plain_wall / fast_wall:.1f} times as fast by the clock, "
            f"{scale * plain_cpu / fast_cpu:.1f} by CPU time"
        )
        difference = f1_fast[: len(some)] - f1_plain
        print(f"macro F1 of fast minus that of the plain loop, points: {difference.mean():+.2f}")
        claims.append(f"fast_macro_f1_from_loop {abs(difference.mean()):.2f} <= 0.3")
        if options.repeat_loop:
            again = [
                plain_loop(data, ids, folds, fold=f, share=paper.validation_share, seed=seed + 1000)
                for f in some
            ]
            own = np.array([macro(chosen, fold) for fold, chosen in enumerate(again)]) - f1_plain
            print(
                f"macro F1 of the plain loop with other draws minus that of the plain loop, points: {own.mean():+.2f}, "
                f"of single folds {own.min():+.2f} to {own.max():+.2f}"
            )
        if options.paper_folds:
            some = range(min(options.paper_folds, len(some)))
            found, wall, cpu = timed(
                lambda: linear_probe.predict_paper(data, [(folds, fold) for fold in some], paper, seed=seed)
            )
            f1_paper = np.array(
                [macro(values.argmax(axis=1), fold) for fold, (values, _) in enumerate(found)]
            )
            difference = f1_paper - f1_plain[: len(some)]
            print(
                f"paper mode, {len(some)} folds: {wall:.1f} s, CPU {cpu:.1f} s; macro F1 {f1_paper.mean():.2f}"
            )
            print(f"macro F1 of paper mode minus that of the plain loop, points: {difference.mean():+.2f}")
            claims.append(f"paper_macro_f1_from_loop {abs(difference.mean()):.2f} <= 0.1")
    for claim in claims:
        print(f"CLAIM {claim}")


if __name__ == "__main__":
    main()
