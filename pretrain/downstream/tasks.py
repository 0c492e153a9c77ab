"""What a task is: its kind (loss, link, metrics, output size), its options, its classes.

A probe knows no task by name. It asks the kind for a loss and a link, and the kind's metrics take
values in the target's own space (probabilities, or original units): what a k-NN average already is
is never passed through a link again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

import numpy as np

from pretrain.downstream import losses, metrics

CLASS_TABLES: Mapping[str, tuple[tuple[int, str], ...]] = MappingProxyType(
    {
        "resolve-biomes": (
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
        ),
        "cavm-types": (
            (1, "Barren"),
            (2, "Graminoid tundra"),
            (3, "Prostrate-shrub tundra"),
            (4, "Erect-shrub tundra"),
            (5, "Wetland"),
        ),
    }
)
"""Code and name of each class, in the order of their ids. RESOLVE Ecoregions 2017 (BIOME_NUM);
Circumpolar Arctic Vegetation Map, the five types of the SSL4Eco paper."""

Loss = Callable[[Any, Any], tuple[Any, Any]]


@dataclass(frozen=True)
class TaskKind:
    """How one kind of target is learned and scored."""

    loss: Loss
    """(logits, targets) to mean loss and its gradient by the logits; numpy arrays or tensors."""
    link: Callable[[Any], Any]
    """Logits of a linear head to the target's own space."""
    scores: Callable[[np.ndarray, np.ndarray], dict[str, float]]
    """(predictions, targets), both in the target's own space, to the metrics of one fold."""
    details: Callable[[np.ndarray, np.ndarray], list[dict[str, float]]]
    """The same per class or target."""
    main_metric: str
    k: int
    """Neighbors of the k-NN probe where the task names none (the paper's most used value)."""
    is_scaled: bool = False
    """Whether a head learns z-scores of the target (by the training part's statistics)."""
    is_stratified: bool = False
    """Whether random folds hold equal shares of each class."""


KINDS: Mapping[str, TaskKind] = MappingProxyType(
    {
        "classification": TaskKind(
            loss=losses.cross_entropy,
            link=losses.softmax,
            scores=metrics.classification_scores,
            details=metrics.classification_details,
            main_metric="macro_f1",
            k=10,
            is_stratified=True,
        ),
        "regression": TaskKind(
            loss=losses.squared_error,
            link=losses.identity,
            scores=metrics.regression_scores,
            details=metrics.regression_details,
            main_metric="r2",
            k=10,
            is_scaled=True,
        ),
        "multilabel": TaskKind(
            loss=losses.binary_cross_entropy,
            link=losses.sigmoid,
            scores=metrics.multilabel_scores,
            details=metrics.multilabel_details,
            main_metric="micro_f1",
            k=5,
        ),
        "distribution": TaskKind(
            loss=losses.divergence,
            link=losses.simplex,
            scores=metrics.distribution_scores,
            details=metrics.regression_details,
            main_metric="r2",
            k=1,
        ),
    }
)


@dataclass(frozen=True)
class Task:
    """A task's options, defaults filled in; schemas/tasks.schema.yaml describes each."""

    name: str
    dataset: str
    target: str | Sequence[str]
    kind: str
    classes: str | Sequence[Any] | None = None
    ignore: Sequence[Any] = ()
    seasons: Sequence[str] | None = None
    mode: str = "paper"
    k: int | None = None
    temperature: float = 0.07
    device: str = "auto"
    folds: int = 10
    block_km: float = 100.0
    validation_share: float = 0.1

    @classmethod
    def from_settings(cls, name: str, settings: Mapping[str, Any]) -> "Task":
        """Build a task from its config entry; raise ValueError for what cannot be a task."""
        settings = {key: value for key, value in settings.items() if value is not None}
        unknown = sorted(set(settings) - {item.name for item in fields(cls)} - {"name"})
        if unknown:
            raise ValueError(f"task {name!r}: unknown options {unknown}")
        if settings.get("kind") not in KINDS:
            raise ValueError(f"task {name!r}: kind {settings.get('kind')!r} is not one of {sorted(KINDS)}")
        task = cls(name=name, **settings)
        if task.kind == "classification" and (task.classes is None or len(task.targets) != 1):
            raise ValueError(
                f"task {name!r}: classification needs one target column and `classes`, the fixed "
                f"table of codes: a list, or one of {sorted(CLASS_TABLES)}"
            )
        if task.kind == "distribution" and len(task.targets) < 2:
            raise ValueError(f"task {name!r}: a distribution needs a list of at least two columns")
        return task

    @property
    def targets(self) -> tuple[str, ...]:
        """The label columns the task reads."""
        return (self.target,) if isinstance(self.target, str) else tuple(self.target)

    @property
    def rules(self) -> TaskKind:
        """Loss, link and metrics of the task's kind."""
        return KINDS[self.kind]

    @property
    def n_neighbors(self) -> int:
        """The k of the k-NN probe."""
        return self.k or self.rules.k


def class_table(classes: str | Sequence[Any]) -> list[tuple[Any, str]]:
    """Give code and name of each class in the order of their ids.

    Parameters
    ----------
    classes : name of one of `CLASS_TABLES`, or a list of codes or of ``{code, name}``. The id of a
        class is its place in this list, whatever classes happen to be present in a dataset.
    """
    if isinstance(classes, str):
        if classes not in CLASS_TABLES:
            raise ValueError(f"classes {classes!r} is not one of {sorted(CLASS_TABLES)} or a list")
        return list(CLASS_TABLES[classes])
    entries = [item if isinstance(item, Mapping) else {"code": item} for item in classes]
    pairs = [(entry["code"], entry.get("name", str(entry["code"]))) for entry in entries]
    codes = [code for code, _ in pairs]
    if len(set(codes)) < max(2, len(codes)):
        raise ValueError(f"classes {codes} must be at least two different codes")
    return pairs


def output_table(task: Task) -> list[dict[str, Any]]:
    """Describe each output of a head: ``{code, name}`` of a class, or the target's column."""
    if task.kind == "classification":
        return [{"code": code, "name": name} for code, name in class_table(task.classes)]
    return [{"code": column, "name": column} for column in task.targets]


def encode_targets(columns: Mapping[str, np.ndarray], task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Turn label columns into the target matrix of a task.

    Parameters
    ----------
    columns : values of each of `task.targets`; missing is NaN, in integers -1, in text ""

    Returns
    -------
    targets : float32 (n, outputs): one-hot classes, 0/1 labels, distributions (rows divided by
        their sum), or values in original units
    is_known : bool (n,); False where a value is missing or its class is in `task.ignore`

    Raises
    ------
    ValueError
        For a code that the class table does not hold, or values that are no distribution.
    """
    if task.kind == "classification":
        return _encode_classes(columns[task.targets[0]], task)
    values = np.stack([_numbers(columns[name]) for name in task.targets], axis=1)
    is_known = np.isfinite(values).all(axis=1)
    if task.kind == "multilabel" and not np.isin(values[is_known], (0, 1)).all():
        raise ValueError(f"task {task.name!r}: multilabel columns must hold 0 and 1")
    if task.kind == "distribution":
        total = values.sum(axis=1)
        if np.any(values[is_known] < 0) or np.any(total[is_known] <= 0):
            raise ValueError(f"task {task.name!r}: a distribution has a negative or no share")
        values = values / np.where(is_known, total, 1)[:, None]
    return np.where(is_known[:, None], values, 0).astype(np.float32), is_known


def _numbers(values: np.ndarray) -> np.ndarray:
    """Give a label column as floats, NaN where missing."""
    values = np.asarray(values)
    if values.dtype.kind in "iu":
        return np.where(values == -1, np.nan, values.astype(np.float64))
    return values.astype(np.float64)


def _encode_classes(codes: np.ndarray, task: Task) -> tuple[np.ndarray, np.ndarray]:
    table = {_code_key(code): i for i, (code, _) in enumerate(class_table(task.classes))}
    ignored = {_code_key(code) for code in task.ignore}
    keys = [_code_key(code) for code in np.asarray(codes).tolist()]
    unknown = sorted(set(keys) - set(table) - ignored - {""})
    if unknown:
        raise ValueError(
            f"task {task.name!r}, target {task.targets[0]!r}: codes {unknown[:10]} are not in the "
            f"class table {sorted(table)}. Add them to classes, or to ignore."
        )
    ids = np.array([-1 if key in ignored else table.get(key, -1) for key in keys], int)
    return metrics.one_hot(ids, len(table)).astype(np.float32), ids >= 0


def _code_key(code: Any) -> str:
    """Give one spelling to a code that is an int, a whole float or a string; "" if missing."""
    if code is None or code != code or (isinstance(code, int) and code == -1):
        return ""
    return str(int(code)) if isinstance(code, float) and code.is_integer() else str(code)
