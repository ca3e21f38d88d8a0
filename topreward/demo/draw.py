"""Pictures of a rollout.

In: a Rollout and frame numbers. Out: (N, H, W, 3) uint8 RGB. What does not move in an episode is drawn once:
the table with everything behind the moving thing, and a cut-out of everything in front of it. Drawn
`supersample` times too large and averaged down, which is what smooths the edges.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from topreward.demo import things
from topreward.demo.backdrop import backdrop
from topreward.demo.pen import Pen, View
from topreward.demo.scene import ROW_DIVIDE, THINGS, Point
from topreward.demo.world import TASKS, Rollout
from topreward.errors import ConfigError

SIZE = (192, 192)
"""Height and width of a frame unless told otherwise, px."""
SUPERSAMPLE = 2
LARGEST = 4096
"""px; a side of the canvas, supersampling included."""


def as_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) in px of an int (square) or a pair. Raises ConfigError below 16 px."""
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 16:
        raise ConfigError(f"frame size is {height}x{width} px, want at least 16x16")
    return height, width


class Painter:
    """Draws the frames of one rollout."""

    def __init__(
        self,
        rollout: Rollout,
        size: int | tuple[int, int] = SIZE,
        supersample: int = SUPERSAMPLE,
        table: Image.Image | None = None,
    ) -> None:
        """`table`: what `backdrop` gives for this scene and view, where it has been drawn already."""
        self.height, self.width = as_size(size)
        if supersample < 1 or max(self.height, self.width) * supersample > LARGEST:
            raise ConfigError(
                f"{self.height}x{self.width} px supersampled {supersample} times, want 1 or more and sides to {LARGEST}"
            )
        self.rollout, self.supersample, self._table = rollout, supersample, table
        self.view = View(rollout.scene.camera, self.height * supersample, self.width * supersample)
        self._task_of = {task.thing: name for name, task in TASKS.items()}
        self._moving = TASKS[rollout.acted].thing if rollout.acted else None

    def frames(self, indices: Iterable[int]) -> NDArray[np.uint8]:
        """(N, H, W, 3) uint8 RGB, in the order asked for."""
        wanted = list(indices)
        out = np.empty((len(wanted), self.height, self.width, 3), dtype=np.uint8)
        for row, index in enumerate(wanted):
            out[row] = np.asarray(self.picture(int(index)))
        return out

    def picture(self, index: int) -> Image.Image:
        """One frame, H x W px."""
        scene = self.rollout.scene
        x, y, z, width = (float(v) for v in self.rollout.gripper[index])
        tip = (x, y, z)
        canvas = self._ground.copy()
        pen = Pen(canvas, self.view, scene.light)
        if self._moving is not None:
            stage = self._stage(self._moving, index)
            if self._moving in things.SHADOW:
                things.SHADOW[self._moving](pen, scene, stage)
            things.gripper_shadow(pen, tip)
            things.DRAW[self._moving](pen, scene, stage)
        else:
            things.gripper_shadow(pen, tip)
        behind = y > ROW_DIVIDE
        if behind:
            things.gripper(pen, scene, tip, width)
        if self._cutout is not None:
            image, mask, corner = self._cutout
            canvas.paste(image, corner, mask)
        if not behind:
            things.gripper(pen, scene, tip, width)
        things.arm(pen, scene, tip)
        return canvas.reduce(self.supersample) if self.supersample > 1 else canvas

    def _stage(self, thing: str, index: int) -> float:
        return float(self.rollout.progress[self._task_of[thing]][index])

    @cached_property
    def _order(self) -> list[str]:
        """The things from back to front."""
        return sorted(THINGS, key=lambda thing: -self.rollout.scene.places[thing][1])

    @cached_property
    def _ground(self) -> Image.Image:
        """Everything that lies behind the moving thing, and all that lies flat."""
        scene = self.rollout.scene
        canvas = self._table.copy() if self._table is not None else backdrop(scene, self.view)
        pen = Pen(canvas, self.view, scene.light)
        things.can_mark(pen, scene)
        for thing in self._order:
            if thing != self._moving and thing in things.SHADOW:
                things.SHADOW[thing](pen, scene, self._stage(thing, 0))
        for thing in self._order:
            if thing == self._moving:
                break
            things.DRAW[thing](pen, scene, self._stage(thing, 0))
        return canvas

    @cached_property
    def _cutout(self) -> tuple[Image.Image, Image.Image, tuple[int, int]] | None:
        """What stands in front of the moving thing: picture, mask, and where its corner goes."""
        if self._moving is None or self._order[-1] == self._moving:
            return None
        scene = self.rollout.scene
        canvas, mask = self._ground.copy(), Image.new("L", self._ground.size)
        pen = Pen(canvas, self.view, scene.light, mask)
        for thing in self._order[self._order.index(self._moving) + 1 :]:
            things.DRAW[thing](pen, scene, self._stage(thing, 0))
        box = mask.getbbox()
        if box is None:  # all of it outside the picture
            return None
        return canvas.crop(box), mask.crop(box), (box[0], box[1])


def render(
    rollout: Rollout,
    indices: Iterable[int] | None = None,
    *,
    size: int | tuple[int, int] = SIZE,
    supersample: int = SUPERSAMPLE,
) -> NDArray[np.uint8]:
    """Frames of a rollout: (N, H, W, 3) uint8 RGB, all of them where `indices` is None."""
    return Painter(rollout, size, supersample).frames(range(rollout.num_frames) if indices is None else indices)


def tip_pixel(rollout: Rollout, index: int, size: int | tuple[int, int] = SIZE) -> tuple[float, float]:
    """Where the gripper's tip appears in a frame, (x, y) px."""
    height, width = as_size(size)
    x, y, z, _ = (float(v) for v in rollout.gripper[index])
    point: Point = (x, y, z)
    return View(rollout.scene.camera, height, width)(point)
