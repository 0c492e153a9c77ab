"""Points in polygons, all points of a parallel at once.

The cells of a grid share few latitudes. A polygon's edges cut each of them into intervals, and the
points between the two ends of an interval lie inside: two crossings decide hundreds of points, where
a test point by point looks at the polygon for each of them.
"""

from dataclasses import dataclass

import numpy as np
import shapely

VERTICES_AT_ONCE = 2_000_000
"""Polygons are taken in portions of about this many vertices, which bounds the memory."""
ROUNDING = 64 * np.finfo(float).eps
"""Relative distance from an edge within which rounding might decide: an exact test has to."""


def scan(x: np.ndarray, y: np.ndarray, polygons: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the first polygon around each point, where the crossings of its parallel tell it.

    Parameters
    ----------
    x, y : finite, shape (n,), in the polygons' CRS
    polygons : valid, of type Polygon; where several hold a point the first one counts

    Returns
    -------
    first : int array (n,), position of the polygon, -1 outside all; holds where `is_sure`
    is_sure : bool array (n,), False on an edge or beside it by no more than rounding; False everywhere
        if the points share too few parallels for this to be faster than a test of each
    """
    first, is_sure = np.full(x.size, -1), np.ones(x.size, bool)
    if x.size == 0 or polygons.size == 0:
        return first, is_sure
    points = _Points.sort(x, y)
    portion = np.cumsum(shapely.get_num_coordinates(polygons)) // VERTICES_AT_ONCE
    for number in np.unique(portion)[::-1]:
        chosen = np.flatnonzero(portion == number)
        rings, polygon = shapely.get_rings(polygons[chosen], return_index=True)
        vertices, ring = shapely.get_coordinates(rings, return_index=True)
        is_edge = np.append(ring[1:] == ring[:-1], False)  # from a vertex to the next
        level = np.searchsorted(points.levels, vertices[:, 1])
        low, high = np.minimum(level[1:], level[:-1]), np.maximum(level[1:], level[:-1])
        n_crossings = np.append(high - low, 0) * is_edge
        if n_crossings.sum() > x.size + len(vertices):
            return first, np.zeros(x.size, bool)
        edge = np.repeat(np.arange(len(vertices)), n_crossings)
        place = points.place_of(*_crossings(points.levels, vertices, edge, _numbers(low, n_crossings[:-1])))
        owner = chosen[polygon[ring[edge]]]
        sorting = np.lexsort((place, owner))
        # within the slack of a crossing a point is not sure; all between two crossings are inside
        slack = points.slack(vertices)
        before, after = points.range_of(place[sorting], place[sorting], slack=slack)
        is_sure[points.order[_numbers(before, after - before)]] = False
        falling = np.argsort(-owner[sorting][::2], kind="stable")  # the first polygon is written last
        begin, stop, owner = before[::2][falling], after[1::2][falling], owner[sorting][::2][falling]
        first[points.order[_numbers(begin, stop - begin)]] = np.repeat(owner, stop - begin)
        begin, stop = points.range_of(*_touching(points, vertices, level, is_edge), slack=slack)
        is_sure[points.order[_numbers(begin, stop - begin)]] = False
    return first, is_sure


@dataclass(frozen=True)
class _Points:
    """Points sorted by parallel and along it."""

    levels: np.ndarray
    """y of the parallels, increasing."""
    order: np.ndarray
    """The points, sorted."""
    place: np.ndarray
    """Twice the number of a sorted point's parallel and its place there, 0 to 1: not decreasing."""
    left: float
    width: float

    @classmethod
    def sort(cls, x: np.ndarray, y: np.ndarray) -> "_Points":
        order = np.argsort(y, kind="stable")
        is_new = np.append(True, np.diff(y[order]) > 0)
        left, width = x.min(), np.ptp(x) or 1.0
        place = 2.0 * (np.cumsum(is_new) - 1) + (x[order] - left) / width
        along = np.argsort(place, kind="stable")
        return cls(y[order[is_new]], order[along], place[along], left, width)

    def place_of(self, level: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Give the place of any x on a parallel; beyond the points it stays near its parallel."""
        return 2.0 * level + np.clip((x - self.left) / self.width, -0.25, 1.25)

    def range_of(self, begin: np.ndarray, stop: np.ndarray, *, slack: float) -> tuple[np.ndarray, np.ndarray]:
        """Give from which to before which of the sorted points intervals of places reach."""
        rising = np.argsort(begin)  # neighbors are searched one after the other: twice as fast
        first, last = np.empty_like(rising), np.empty_like(rising)
        first[rising] = np.searchsorted(self.place, begin[rising] - slack)
        last[rising] = np.searchsorted(self.place, stop[rising] + slack)
        return first, last

    def slack(self, vertices: np.ndarray) -> float:
        """Give how far from its true place rounding may put a crossing of edges between vertices."""
        largest = abs(self.left) + self.width + np.abs(vertices[:, 0]).max()
        return ROUNDING * (self.levels.size + largest / self.width)


def _crossings(
    levels: np.ndarray, vertices: np.ndarray, edge: np.ndarray, level: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Give parallel and x of crossings: edge `edge[i]` with parallel `level[i]`."""
    (x, y), (dx, dy) = vertices[edge].T, (vertices[edge + 1] - vertices[edge]).T
    return level, x + (levels[level] - y) * (dx / dy)


def _touching(points: _Points, vertices: np.ndarray, level: np.ndarray, is_edge: np.ndarray) -> np.ndarray:
    """Give the places of vertices on a parallel, and from where to where edges run along one, shape (2, m).

    An edge belongs to the parallels from its lower end, included, to its upper end, which is not: so
    rings stay closed, and these may hold points that are on an edge and between no crossings.
    """
    is_on = points.levels[np.minimum(level, points.levels.size - 1)] == vertices[:, 1]
    on = np.flatnonzero(is_on)
    following = on + (is_edge & np.append(is_on[1:], False))[on]
    return np.sort(points.place_of(level[on], vertices[np.stack([on, following]), 0]), axis=0)


def _numbers(begin: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Count `n` numbers up from each `begin`, one run after the other."""
    return np.repeat(begin - np.cumsum(n) + n, n) + np.arange(n.sum())
