"""Area of the piece of surface inside each 2x2 or 2x2x2 neighbourhood of a mask.

A neighbourhood's corners are inside or outside the mask; the surface runs through the middle of every edge between an
inside and an outside corner (marching squares and cubes). Nikolov et al. 2021, J Med Internet Res 23(7):e26151, weight
surface distances by these lengths and areas, and so become independent of how voxels happen to stand to the surface.
Three rules make the pieces unique, and equal to those of the google-deepmind/surface-distance tables:

1. Complementary neighbourhoods have the same surface; the fewer corners are the inside, the code below 128 at a tie.
2. On a face cut twice, inside corners are kept apart.
3. A loop of more than three points is split into the triangles of largest total area at isotropic spacing, at a tie
   into those with the largest single triangle.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_Point = tuple[float, ...]
_Corner = tuple[int, ...]
_Triangle = tuple[int, int, int]


def element_areas(spacing: Sequence[float]) -> NDArray[np.float64]:
    """Tabulate the surface in a neighbourhood by its code.

    Args:
        spacing: voxel size along 2 or 3 axes.

    Returns:
        [16] contour lengths or [256] areas, in the unit of `spacing` (squared). The code of a neighbourhood is
        sum of 2^b over its inside corners, where corner (0, .., 0) has the highest b and (1, .., 1) has b = 0, the last
        axis running fastest.
    """
    if len(spacing) == 2:
        return _contour_lengths(float(spacing[0]), float(spacing[1]))
    normals = _triangle_normals()  # [256, T, 3]
    a, b, c = (float(size) for size in spacing)
    return np.asarray(np.linalg.norm(normals * np.array([b * c, a * c, a * b]), axis=2).sum(axis=1))


def _contour_lengths(a: float, b: float) -> NDArray[np.float64]:
    lengths = np.zeros(16)
    corner = 0.5 * float(np.hypot(a, b))
    for code in range(1, 15):
        inside = [index for index in range(4) if code >> (3 - index) & 1]  # index = 2 * row + column
        if len(inside) != 2:
            lengths[code] = corner
        elif sum(inside) == 3:  # the two corners of a diagonal
            lengths[code] = 2.0 * corner
        else:
            lengths[code] = b if inside[1] - inside[0] == 1 else a
    return lengths


@lru_cache(maxsize=1)
def _triangle_normals() -> NDArray[np.float64]:
    """Normals [256, T, 3] of the triangles of each code, as long as their area at spacing 1; unused ones are 0."""
    normals = np.zeros((256, 4, 3))
    for code in range(1, 128):
        fewest_inside = code if bin(code).count("1") <= 4 else 255 - code
        found = [normal for loop in _loops(fewest_inside) for normal in _best_triangulation(loop)]
        normals[code, : len(found)] = normals[255 - code, : len(found)] = found
    return normals


def _loops(code: int) -> list[list[_Point]]:
    """Trace the closed lines in which the surface meets the faces of the cube, as loops of edge midpoints."""
    inside = {corner for corner in itertools.product((0, 1), repeat=3) if code >> _bit(corner) & 1}
    neighbours: dict[_Point, list[_Point]] = {}
    for face in _faces():
        for start, end in _cuts(face, inside):
            neighbours.setdefault(start, []).append(end)
            neighbours.setdefault(end, []).append(start)
    loops = []
    while neighbours:
        loop = [min(neighbours)]
        while following := [point for point in neighbours.pop(loop[-1]) if point in neighbours]:
            loop.append(following[0])
        loops.append(loop)
    return loops


def _bit(corner: _Corner) -> int:
    return 7 - (4 * corner[0] + 2 * corner[1] + corner[2])


def _faces() -> Iterator[list[_Corner]]:
    """The four corners of each face, in order around it."""
    for axis, side in itertools.product(range(3), (0, 1)):
        square = [(0, 0), (0, 1), (1, 1), (1, 0)]
        yield [(*pair[:axis], side, *pair[axis:]) for pair in square]


def _cuts(face: list[_Corner], inside: set[_Corner]) -> list[tuple[_Point, _Point]]:
    middles = [tuple((p + q) / 2 for p, q in zip(face[i - 1], face[i], strict=True)) for i in range(4)]
    cut = [i for i in range(4) if (face[i - 1] in inside) != (face[i] in inside)]  # edge i joins corners i - 1 and i
    if len(cut) == 2:
        return [(middles[cut[0]], middles[cut[1]])]
    if len(cut) == 4:
        return [(middles[i], middles[(i + 1) % 4]) for i in range(4) if face[i] in inside]
    return []


def _best_triangulation(loop: list[_Point]) -> list[NDArray[np.float64]]:
    points = np.array(loop)
    candidates = [
        [np.cross(points[b] - points[a], points[c] - points[a]) / 2 for a, b, c in triangles]
        for triangles in _triangulations(0, len(loop) - 1)
    ]

    def rank(normals: list[NDArray[np.float64]]) -> tuple[float, float]:
        areas = np.linalg.norm(normals, axis=1)
        return round(float(areas.sum()), 9), round(float(areas.max()), 9)

    return max(candidates, key=rank)


def _triangulations(first: int, last: int) -> Iterator[list[_Triangle]]:
    """All ways to split the polygon of the points first..last into triangles."""
    if last - first < 2:
        yield []
        return
    for apex in range(first + 1, last):
        for left, right in itertools.product(_triangulations(first, apex), _triangulations(apex, last)):
            yield [*left, *right, (first, apex, last)]
