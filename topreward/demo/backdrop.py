"""The empty table and the wall behind it.

In: a scene and a view. Out: one float picture per episode, the ground of every frame. Knows nothing of the
things that will stand on it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from topreward.demo.pen import View
from topreward.demo.scene import Scene

TABLE_END = 0.94  # m, y of the table's far edge
Grid = NDArray[np.float32]


def backdrop(scene: Scene, view: View) -> Image.Image:
    """Table, wall and light, (H, W) RGB."""
    rng = np.random.Generator(np.random.PCG64(scene.texture))
    x, y = view.table_points()
    on_table = np.nan_to_num(y, nan=np.inf) < TABLE_END
    x, y = np.where(on_table, x, 0), np.where(on_table, y, 0)
    style, base = scene.table
    tone = {"planks": _planks, "cloth": _cloth, "stone": _stone}[style](rng, x, y)
    table = np.array(base, dtype=np.float32) * tone[..., None]
    pool = 1.06 - 0.22 * ((x + 0.25 * scene.light) ** 2 + (y - 0.45) ** 2)  # a lamp over one side
    table *= pool[..., None]
    rows = (np.arange(view.height, dtype=np.float32) / view.height)[:, None, None]
    wall = np.array(scene.wall, dtype=np.float32) * (0.80 + 0.5 * rows)
    picture = np.where(on_table[..., None], table, wall)
    # the far edge: a thin lit line, and the wall in shade just above it
    edge = np.clip(1 - np.abs(np.nan_to_num(y, nan=9.0) - TABLE_END) / 0.012, 0, 1) * on_table
    picture *= 1 + 0.10 * edge[..., None]
    return Image.fromarray(np.clip(np.round(picture), 0, 255).astype(np.uint8))


def _waves(rng: np.random.Generator, x: Grid, y: Grid, pitch: tuple[float, float], count: int) -> Grid:
    """Slow random waves with about `pitch` periods per metre along x and y; mean 0, about 1 at most."""
    out = np.zeros_like(x)
    for _ in range(count):
        # plain floats keep float32 arrays float32, which halves the time
        fx, fy = (float(f) * p * 2 * math.pi for f, p in zip(rng.normal(0, 1, 2), pitch, strict=True))
        out += np.sin(fx * x + fy * y + float(rng.uniform(0, 2 * math.pi)))
    return out / np.float32(count**0.5 * 1.4)


def _planks(rng: np.random.Generator, x: Grid, y: Grid) -> Grid:
    width = float(rng.uniform(0.15, 0.22))
    plank = np.floor(y / width + 20).astype(np.int64)
    shades = rng.normal(0, 0.028, 64).astype(np.float32)
    shifts = rng.uniform(0, 10, 64).astype(np.float32)
    inside = y / width + 20 - plank
    along = x + shifts[plank % 64]
    rings = np.sin(2 * np.pi * (inside * 5 + 0.7 * _waves(rng, along, inside * width, (1.2, 4.0), 3)))
    grain = _waves(rng, along, y, (2.0, 45.0), 4)
    seam = np.clip(1 - np.minimum(inside, 1 - inside) * width / 0.004, 0, 1)
    return np.asarray(1 + shades[plank % 64] + 0.022 * rings + 0.02 * grain - 0.18 * seam, dtype=np.float32)


def _cloth(rng: np.random.Generator, x: Grid, y: Grid) -> Grid:
    angle = float(rng.uniform(-0.25, 0.25))
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    pitch = float(rng.uniform(0.1, 0.16))
    # soft-edged checks, faint enough not to hide the things on them
    across, down = (np.clip(np.sin(2 * np.pi * w / pitch) * 4, -1, 1) for w in (u, v))
    folds = _waves(rng, x, y, (1.2, 0.8), 3)
    return np.asarray(1 + 0.022 * across + 0.022 * down + 0.015 * folds, dtype=np.float32)


def _stone(rng: np.random.Generator, x: Grid, y: Grid) -> Grid:
    clouds = _waves(rng, x, y, (2.5, 2.5), 6)
    warped = _waves(rng, x + 0.06 * clouds, y + 0.06 * clouds, (2.0, 2.0), 3)
    veins = np.clip(1 - np.abs(warped) * 7, 0, 1)
    return np.asarray(1 + 0.025 * clouds - 0.08 * veins, dtype=np.float32)
