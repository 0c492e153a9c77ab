"""The first screen: what was asked, what came out, what is missing and why."""

from collections.abc import Mapping, Sequence
from typing import Any

from workflow_scripts.report import page
from workflow_scripts.report.inputs import Dataset, Model
from workflow_scripts.report.timing import REASONS

INTERESTING_REASONS = 3


def first_screen(
    datasets: Sequence[Dataset], models: Sequence[Model], *, tasks: Sequence[str], warnings: Sequence[str]
) -> str:
    """Compose the head of the page."""
    trained = [model for model in models if model.metrics is not None]
    families = list(dict.fromkeys(model.family for model in trained))
    words = [_plural(len(datasets), "dataset")]
    words += (
        [f"{_plural(len(families), 'trained model')} in {_plural(len(trained), 'run')}"] if families else []
    )
    words += [_plural(len(tasks), "task")] if tasks else []
    parts = [page.paragraph(", ".join(words) + ".", kind="lead")]
    parts += [f'<p class="notice" role="note">{page.text(line)}</p>' for line in notices(datasets)]
    parts += [f'<p class="warning" role="alert">{page.text(line)}</p>' for line in warnings]
    return "".join(parts) + outcome_table(datasets) + page.definitions(_asked_and_missing(datasets))


def notices(datasets: Sequence[Dataset]) -> list[str]:
    """List the datasets' notices, each once, with the names where they do not concern all."""
    found: dict[str, list[str]] = {}
    for dataset in datasets:
        if dataset.settings["report"]["notice"]:
            found.setdefault(dataset.settings["report"]["notice"], []).append(dataset.name)
    return [
        notice if len(names) == len(datasets) else f"{', '.join(names)}: {notice}"
        for notice, names in found.items()
    ]


def outcome_table(datasets: Sequence[Dataset]) -> str:
    """Tabulate what came out, one row per dataset."""
    rows = []
    for dataset in datasets:
        n_locations = 0 if dataset.locations is None else len(dataset.locations)
        row = [dataset.settings["report"]["title"] or dataset.name, page.count(n_locations)]
        if dataset.patches is None:
            rows.append([*row, "–", "–", "–", "–", "–"])
            continue
        stored = dataset.stored
        span = f"{stored['datetime'].min():%Y}–{stored['datetime'].max():%Y}" if len(stored) else "–"
        n_usable = (stored.groupby("location_id").size() >= dataset.n_needed).sum()
        rows.append(
            [
                *row,
                page.count(len(dataset.patches)),
                page.count(len(stored)),
                page.share(len(dataset.patches) - len(stored), len(dataset.patches)),
                page.count(n_usable),
                span,
            ]
        )
    header = [
        "Dataset",
        "Locations",
        "Patches asked for",
        "Stored",
        "Missing",
        "Usable locations",
        "Scenes of",
    ]
    return page.table(
        header, rows, caption="What came out (usable: patches of two seasons, or of the only one)"
    )


def what_was_asked(settings: Mapping[str, Any]) -> str:
    """Say in one sentence what a dataset's options ask for."""
    locations, seasons, scenes = (settings[section] for section in ("locations", "seasons", "scenes"))
    words = [f"locations by design “{locations['design']}”"]
    if locations["design"] != "file" and locations.get("spacing_m"):
        words[0] += f" on a {locations['spacing_m'] / 1000:g} km grid"
    words.append(f"seasons by “{seasons['strategy']}”")
    if seasons["strategy"] == "phenology":
        greenness = settings["greenness"]
        words[-1] += f" from {greenness['source']} {greenness.get('index', 'evi').upper()}"
    if scenes.get("catalog", "") is None:
        return f"{'; '.join(words)}; no images (`scenes.catalog` names none)"
    first, last = scenes["years"]
    words.append(
        f"patches of {settings['patches']['size_m']:,} m from scenes of {first}–{last} with at most "
        f"{scenes['max_cloud_cover']:g} % cloud, choice “{scenes['choice']}”"
    )
    return "; ".join(words)


def main_reasons(dataset: Dataset) -> str:
    """Say why patches are missing, the most frequent reasons first."""
    if dataset.patches is None:
        return "no patches were made"
    missing = dataset.patches.loc[dataset.patches["status"] != "ok", "reason"].value_counts()
    if missing.empty:
        return "nothing is missing"
    shown = [
        f"{REASONS.get(reason, reason)} ({n:,})" for reason, n in missing.head(INTERESTING_REASONS).items()
    ]
    return f"missing patches: {'; '.join(shown)}"


def _asked_and_missing(datasets: Sequence[Dataset]) -> list[tuple[str, str]]:
    return [
        (
            dataset.settings["report"]["title"] or dataset.name,
            f"Asked: {what_was_asked(dataset.settings)}. Result: {main_reasons(dataset)}.",
        )
        for dataset in datasets
    ]


def _plural(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"
