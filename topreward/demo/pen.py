"""A pen for solid things: boxes, tubes, discs and soft shadows in perspective, on a PIL image.

In: points in metres and colours. Out: polygons on a canvas. Knows nothing of tasks or of what it draws.
Written for speed in plain Python: a frame holds some hundred points, too few for numpy to pay.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from topreward.demo.scene import Camera, Colour, Point

Pixel = tuple[float, float]
"""(x, y) on the canvas, px."""

RING = 20
"""Corners of a circle."""
CIRCLE = tuple((math.cos(2 * math.pi * i / RING), math.sin(2 * math.pi * i / RING)) for i in range(RING))


class View:
    """The camera's projection onto a canvas of a given size."""

    def __init__(self, camera: Camera, height: int, width: int) -> None:
        eye, target = np.array(camera.eye), np.array(camera.target)
        forward = (target - eye) / np.linalg.norm(target - eye)
        right = np.cross(forward, (0.0, 0.0, 1.0))
        right /= np.linalg.norm(right)
        self.axes = np.stack([right, np.cross(right, forward), forward])  # (3, 3) rows: right, up, forward
        self.eye: Point = camera.eye
        self.scale = camera.focal * min(height, width)  # px, at a distance of 1 m
        self.height, self.width = height, width
        self._rows = [tuple(float(v) for v in row) for row in self.axes]

    def __call__(self, point: Point) -> Pixel:
        (a, b, c), (d, e, f), (g, h, i) = self._rows
        x, y, z = point[0] - self.eye[0], point[1] - self.eye[1], point[2] - self.eye[2]
        k = self.scale / (g * x + h * y + i * z)
        return self.width / 2 + k * (a * x + b * y + c * z), self.height / 2 - k * (d * x + e * y + f * z)

    def pixels_per_metre(self, point: Point) -> float:
        """How large a metre looks at `point`, px."""
        g, h, i = self._rows[2]
        return self.scale / (g * (point[0] - self.eye[0]) + h * (point[1] - self.eye[1]) + i * (point[2] - self.eye[2]))

    def table_points(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The table point (x, y) seen by each pixel, (H, W) each, m; NaN where the ray does not come down."""
        u = ((np.arange(self.width) + 0.5 - self.width / 2) / self.scale)[None, :, None]
        v = ((self.height / 2 - np.arange(self.height) - 0.5) / self.scale)[:, None, None]
        rays = u * self.axes[0] + v * self.axes[1] + self.axes[2]
        with np.errstate(divide="ignore"):
            reach = np.where(rays[..., 2] < -1e-6, -self.eye[2] / rays[..., 2], np.nan)
        x, y = self.eye[0] + reach * rays[..., 0], self.eye[1] + reach * rays[..., 1]
        return x.astype(np.float32), y.astype(np.float32)


def shade(colour: Colour, factor: float) -> Colour:
    """Darker (< 1) or lighter (> 1); lighter goes towards white, so that hues do not burn out."""
    if factor <= 1:
        return int(colour[0] * factor), int(colour[1] * factor), int(colour[2] * factor)
    k = min(factor - 1, 1.0)
    return (
        int(colour[0] + (255 - colour[0]) * k),
        int(colour[1] + (255 - colour[1]) * k),
        int(colour[2] + (255 - colour[2]) * k),
    )


@lru_cache(maxsize=512)
def _blob(width: int, height: int, strength: int) -> Image.Image:
    """A soft elliptical mask of `width` x `height` px, at most `strength` of 255."""
    x = (np.arange(width) + 0.5) / width * 2 - 1
    y = (np.arange(height) + 0.5) / height * 2 - 1
    fall = np.clip(1 - (x[None, :] ** 2 + y[:, None] ** 2), 0, 1)
    fall = fall * (2 - fall)  # a flat core and a soft rim
    return Image.fromarray(np.round(fall**1.5 * strength).astype(np.uint8))


class Pen:
    """Draws on `image`; with a `mask`, marks there (255) every pixel that it has touched."""

    def __init__(self, image: Image.Image, view: View, light: float, mask: Image.Image | None = None) -> None:
        self.image, self.view, self.light = image, view, light
        self._draw = ImageDraw.Draw(image)
        self._mask = ImageDraw.Draw(mask) if mask is not None else None

    def polygon(self, pixels: Sequence[Pixel], colour: Colour) -> None:
        """Fill a polygon given in canvas pixels."""
        self._draw.polygon(pixels, fill=colour)
        if self._mask is not None:
            self._mask.polygon(pixels, fill=255)

    def face(self, points: Sequence[Point], colour: Colour) -> None:
        """Fill a polygon given in metres."""
        self.polygon([self.view(p) for p in points], colour)

    def disc(self, centre: Point, radius: float, colour: Colour) -> None:
        """A flat level disc."""
        x, y, z = centre
        self.face([(x + radius * c, y + radius * s, z) for c, s in CIRCLE], colour)

    def ball(self, centre: Point, radius: float, colour: Colour) -> None:
        """A small sphere."""
        (x, y), r = self.view(centre), radius * self.view.pixels_per_metre(centre)
        self.polygon([(x + r * c, y + r * s) for c, s in CIRCLE], shade(colour, 0.8))
        x, y, r = x - self.light * r * 0.2, y - r * 0.2, r * 0.72
        self.polygon([(x + r * c, y + r * s) for c, s in CIRCLE], shade(colour, 1.12))

    def box(self, low: Point, high: Point, colour: Colour) -> None:
        """An upright box between two corners: the faces that the camera sees, lit from above and one side."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        if self.view.eye[0] < x0:
            lit = 0.92 if self.light > 0 else 0.66
            self.face([(x0, y0, z0), (x0, y1, z0), (x0, y1, z1), (x0, y0, z1)], shade(colour, lit))
        if self.view.eye[0] > x1:
            lit = 0.66 if self.light > 0 else 0.92
            self.face([(x1, y0, z0), (x1, y1, z0), (x1, y1, z1), (x1, y0, z1)], shade(colour, lit))
        self.face([(x0, y0, z0), (x1, y0, z0), (x1, y0, z1), (x0, y0, z1)], shade(colour, 0.8))
        self.face([(x0, y0, z1), (x1, y0, z1), (x1, y1, z1), (x0, y1, z1)], shade(colour, 1.1))

    def tube(
        self,
        base: Point,
        top: Point,
        base_radius: float,
        top_radius: float,
        colour: Colour,
        inside: Colour | None = None,
    ) -> None:
        """A cone or cylinder between two points: open at the top, showing its `inside`, or closed."""
        ax, ay, az = top[0] - base[0], top[1] - base[1], top[2] - base[2]
        length = math.sqrt(ax * ax + ay * ay + az * az)
        ax, ay, az = ax / length, ay / length, az / length
        # u and v span the rings, at right angles to the axis; u lies in the x-z plane
        norm = math.hypot(ax, az)
        ux, uy, uz = az / norm, 0.0, -ax / norm
        vx, vy, vz = ay * uz - az * uy, az * ux - ax * uz, ax * uy - ay * ux
        eye = self.view.eye
        look = (eye[0] - base[0], eye[1] - base[1], eye[2] - base[2])
        facing = math.atan2(look[0] * vx + look[1] * vy + look[2] * vz, look[0] * ux + look[1] * uy + look[2] * uz)

        def ring(centre: Point, radius: float, start: float, span: float, count: int) -> list[Pixel]:
            out = []
            for i in range(count):
                angle = start + span * i / (count - 1)
                c, s = radius * math.cos(angle), radius * math.sin(angle)
                out.append(
                    self.view((centre[0] + c * ux + s * vx, centre[1] + c * uy + s * vy, centre[2] + c * uz + s * vz))
                )
            return out

        whole = 2 * math.pi * (RING - 1) / RING
        low, high = ring(base, base_radius, 0.0, whole, RING), ring(top, top_radius, 0.0, whole, RING)
        self.polygon(hull(low + high), shade(colour, 0.86))
        # which way round is "left" on the canvas depends on how the axis leans
        (lx, _), (rx, _) = ring(base, 1.0, facing - 1.0, 2.0, 2)
        turn = 1.0 if (rx - lx) * self.light > 0 else -1.0
        for start, end, factor in ((-1.25, -0.35, 1.1), (-1.0, -0.65, 1.32), (0.7, 1.5, 0.7)):
            start, span = facing + turn * start, turn * (end - start)
            band = ring(base, base_radius, start, span, 5) + ring(top, top_radius, start, span, 5)[::-1]
            self.polygon(band, shade(colour, factor))
        if look[0] * ax + look[1] * ay + look[2] * az > length:  # the camera sees the top
            self.polygon(high, shade(colour, 1.18))
            if inside is not None:
                self.polygon(ring(top, top_radius * 0.84, 0.0, whole, RING), inside)
        elif look[0] * ax + look[1] * ay + look[2] * az < 0:  # tilted so far that it sees the base
            self.polygon(low, shade(colour, 0.74))

    def limb(self, start: Point, end: Point, start_radius: float, end_radius: float, colour: Colour) -> None:
        """A round limb between two joints, with a lit stripe."""
        p, q = self.view(start), self.view(end)
        r, s = start_radius * self.view.pixels_per_metre(start), end_radius * self.view.pixels_per_metre(end)
        rounds = [(p[0] + r * c, p[1] + r * d) for c, d in CIRCLE] + [(q[0] + s * c, q[1] + s * d) for c, d in CIRCLE]
        self.polygon(hull(rounds), shade(colour, 0.72))
        dx, dy = -self.light * 0.22, -0.28
        inner = [(p[0] + r * (0.62 * c + dx), p[1] + r * (0.62 * d + dy)) for c, d in CIRCLE]
        inner += [(q[0] + s * (0.62 * c + dx), q[1] + s * (0.62 * d + dy)) for c, d in CIRCLE]
        self.polygon(hull(inner), shade(colour, 1.05))

    def shadow(self, x: float, y: float, half_width: float, half_depth: float, height: float, strength: float) -> None:
        """The soft shadow on the table of something `height` m above (x, y): further off, larger and fainter."""
        x, y = x + self.light * height * 0.45, y - height * 0.12
        grow = 1.25 + height * 1.2
        centre = self.view((x, y, 0.0))
        right, far = self.view((x + half_width * grow, y, 0.0)), self.view((x, y + half_depth * grow, 0.0))
        w, h = max(round(abs(right[0] - centre[0])), 1), max(round(abs(far[1] - centre[1])), 1)
        fade = max(1.0 - 1.6 * height, 0.25)
        mask = _blob(2 * w, 2 * h, round(255 * strength * fade))
        self.image.paste((38, 28, 26), (round(centre[0]) - w, round(centre[1]) - h), mask)


def hull(points: list[Pixel]) -> list[Pixel]:
    """Convex hull, by Andrew's monotone chain."""
    ordered = sorted(points)
    out: list[Pixel] = []
    for sweep in (ordered, ordered[::-1]):
        chain: list[Pixel] = []
        for p in sweep:
            while len(chain) > 1 and _turns_right(chain[-2], chain[-1], p):
                chain.pop()
            chain.append(p)
        out += chain[:-1]
    return out


def _turns_right(a: Pixel, b: Pixel, c: Pixel) -> bool:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]) <= 0
