"""What a task is: its kind (loss, link, metrics, output size), its options, its classes.

A probe knows no task by name. It asks the kind for a loss and a link, and the kind's metrics take
values in the target's own space (probabilities, or original units): what a k-NN average already is
is never passed through a link again.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from pretrain.downstream import losses, metrics
from workflow_scripts.core.classes import CLASS_TABLES

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
    metrics: tuple[str, ...]
    """Names of the scores, the main one first."""
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
            metrics=("macro_f1", "accuracy", "macro_accuracy", "macro_auroc"),
            k=10,
            is_stratified=True,
        ),
        "regression": TaskKind(
            loss=losses.squared_error,
            link=losses.identity,
            scores=metrics.regression_scores,
            details=metrics.regression_details,
            metrics=("r2", "mae", "rmse"),
            k=10,
            is_scaled=True,
        ),
        "multilabel": TaskKind(
            loss=losses.binary_cross_entropy,
            link=losses.sigmoid,
            scores=metrics.multilabel_scores,
            details=metrics.multilabel_details,
            metrics=("micro_f1", "macro_f1", "micro_map", "macro_map", "micro_auroc", "macro_auroc"),
            k=5,
        ),
        "distribution": TaskKind(
            loss=losses.divergence,
            link=losses.simplex,
            scores=metrics.distribution_scores,
            details=metrics.regression_details,
            metrics=("r2", "mae", "rmse"),
            k=1,
        ),
    }
)


_WITH_CLASSES = ("classification", "multilabel")
SOURCE_CLASSES = "labels"
"""`classes` of a task that takes the codes its label column holds."""


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
    combine: str = "mean"
    cells: int | None = None
    mode: str = "paper"
    metric: str | None = None
    pos_weight: float = 1.0
    k: int | None = None
    temperature: float = 0.07
    device: str = "auto"
    divisions: Sequence[str] = ("random", "blocked")
    folds: int = 10
    block_km: float = 100.0
    train_share: float = 1.0
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
        if task.classes is not None and (task.kind not in _WITH_CLASSES or len(task.targets) != 1):
            raise ValueError(f"task {name!r}: `classes` go with one target of kind {_WITH_CLASSES}")
        if task.cells is not None and task.kind not in ("classification", "regression"):
            raise ValueError(
                f"task {name!r}: `cells` go with classification and regression, not {task.kind!r}"
            )
        if task.cells is not None and task.classes == SOURCE_CLASSES:
            raise ValueError(f"task {name!r}: a target with y and x needs its classes listed or named")
        if task.metric not in (None, *task.rules.metrics):
            raise ValueError(f"task {name!r}: metric {task.metric!r} is not one of {task.rules.metrics}")
        if task.pos_weight != 1 and task.kind != "multilabel":
            raise ValueError(f"task {name!r}: `pos_weight` is of multilabel tasks, not of {task.kind!r} ones")
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
    def loss(self) -> Loss:
        """The kind's loss, with the task's weight of positives."""
        if self.pos_weight == 1:
            return self.rules.loss
        return functools.partial(self.rules.loss, pos_weight=self.pos_weight)

    @property
    def main_metric(self) -> str:
        """The score that tables show."""
        return self.metric or self.rules.metrics[0]

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


def with_classes(task: Task, labels: pd.DataFrame) -> Task:
    """Fill in the class table of a task with ``classes: labels``: the codes of its column.

    Parameters
    ----------
    labels : the dataset's whole table of labels, also of locations without a patch, so that ids do not
        depend on what was retrieved
    """
    if task.classes != SOURCE_CLASSES:
        return task
    values = labels[task.targets[0]]
    codes = {_code_key(code) for value in values for code in _codes(value)} - {""}
    numeric = all(code.lstrip("-").isdigit() for code in codes)
    return replace(task, classes=sorted(map(int, codes)) if numeric else sorted(codes))


def output_table(task: Task) -> list[dict[str, Any]]:
    """Describe each output of a head: ``{code, name}`` of a class, or the target's column."""
    if task.classes is not None:
        return [{"code": code, "name": name} for code, name in class_table(task.classes)]
    return [{"code": column, "name": column} for column in task.targets]


def encode_targets(columns: Mapping[str, np.ndarray], task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Turn label columns into the target matrix of a task.

    Parameters
    ----------
    columns : values of each of `task.targets`; missing is NaN, in integers -1, in text "". With
        `classes`, those of a multilabel task are lists of codes; None is missing, an empty list is not

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
    if task.classes is not None:
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


def _encode_classes(values: np.ndarray, task: Task) -> tuple[np.ndarray, np.ndarray]:
    table = {_code_key(code): i for i, (code, _) in enumerate(class_table(task.classes))}
    ignored = {_code_key(code) for code in task.ignore}
    lists = [[_code_key(code) for code in _codes(value)] for value in np.asarray(values, object)]
    unknown = sorted({key for keys in lists for key in keys} - set(table) - ignored - {""})
    if unknown:
        raise ValueError(
            f"task {task.name!r}, target {task.targets[0]!r}: codes {unknown[:10]} are not in the "
            f"class table {sorted(table)[:50]}. Add them to classes, or to ignore."
        )
    targets = np.zeros((len(lists), len(table)), np.float32)
    is_known = np.zeros(len(lists), bool)
    for row, keys in enumerate(lists):
        ids = [table[key] for key in keys if key in table and key not in ignored]
        targets[row, ids] = 1
        is_known[row] = "" not in keys and (task.kind == "multilabel" or len(ids) == 1)
    return targets, is_known


def _codes(value: Any) -> Sequence[Any]:
    """Give the codes of one label: those of a list, or the one."""
    return value if isinstance(value, list | tuple | np.ndarray) else [value]


def _code_key(code: Any) -> str:
    """Give one spelling to a code that is an int, a whole float or a string; "" if missing."""
    if code is None or code != code or (isinstance(code, int) and code == -1):
        return ""
    return str(int(code)) if isinstance(code, float) and code.is_integer() else str(code)
