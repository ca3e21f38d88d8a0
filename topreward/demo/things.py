"""How each thing on the table looks at a given stage, and its shadow.

In: a pen, a scene, a stage in [0, 1]. Out: strokes of the pen. Knows nothing of time or tasks; the geometry
comes from `scene`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from topreward.demo import scene as at
from topreward.demo.pen import CIRCLE, Pen, shade
from topreward.demo.scene import Point, Scene

Stroke = Callable[[Pen, Scene, float], None]


def drawer(pen: Pen, scene: Scene, stage: float) -> None:
    """A cabinet with one drawer that comes out towards the camera."""
    x, y = scene.places["drawer"]
    body, front_colour = scene.colours["drawer"], scene.colours["front"]
    half, top = at.CABINET_WIDTH / 2, at.CABINET_HEIGHT
    face_y = y - 0.02
    _, front, _ = at.drawer_front(scene, stage)
    pen.box((x - half, face_y, 0.0), (x + half, face_y + at.CABINET_DEPTH, top), body)
    wide, low, high = half - 0.018, 0.022, top - 0.022
    pen.face(
        [(x - wide, face_y, low), (x + wide, face_y, low), (x + wide, face_y, high), (x - wide, face_y, high)],
        shade(body, 0.32),
    )
    if front < face_y - 0.012:
        rim = high - 0.015
        pen.box((x - wide, front, low), (x + wide, face_y, rim), shade(body, 0.95))
        inner = wide - 0.013
        pen.face(
            [(x - inner, front, rim), (x + inner, front, rim), (x + inner, face_y, rim), (x - inner, face_y, rim)],
            shade(body, 0.42),
        )
        deep = 0.03
        pen.face(
            [
                (x - inner, front, rim),
                (x + inner, front, rim),
                (x + inner * 0.97, face_y - deep, rim - deep),
                (x - inner * 0.97, face_y - deep, rim - deep),
            ],
            shade(body, 0.55),
        )
    pen.box((x - wide - 0.006, front - 0.014, low - 0.006), (x + wide + 0.006, front, high + 0.004), front_colour)
    pen.ball((x, front - 0.024, (low + high) / 2), 0.014, (226, 214, 190))


def drawer_shadow(pen: Pen, scene: Scene, stage: float) -> None:
    x, y = scene.places["drawer"]
    _, front, _ = at.drawer_front(scene, stage)
    pen.shadow(x, y + 0.05, at.CABINET_WIDTH / 2 + 0.02, 0.10, 0.04, 0.5)
    pen.shadow(x, (front + y) / 2, at.CABINET_WIDTH / 2, (y - front) / 2 + 0.02, 0.03, 0.5)


def block(pen: Pen, scene: Scene, stage: float) -> None:
    """A wooden toy block."""
    x, y, z = at.block_centre(scene, stage)
    half, colour = at.BLOCK_EDGE / 2, scene.colours["block"]
    pen.box((x - half, y - half, z - half), (x + half, y + half, z + half), colour)
    inset, front = half * 0.62, y - half
    pen.face(
        [
            (x - inset, front, z - inset),
            (x + inset, front, z - inset),
            (x + inset, front, z + inset),
            (x - inset, front, z + inset),
        ],
        shade(colour, 0.9),
    )


def block_shadow(pen: Pen, scene: Scene, stage: float) -> None:
    x, y, z = at.block_centre(scene, stage)
    pen.shadow(x, y, at.BLOCK_EDGE * 0.68, at.BLOCK_EDGE * 0.62, z - at.BLOCK_EDGE / 2, 0.6)


def spill(pen: Pen, scene: Scene, stage: float) -> None:
    """A spill that is wiped from one side to the other, and the sponge at the border."""
    x, y = scene.places["table"]
    side, colour = scene.sides["table"], scene.colours["stain"]
    outline = [(float(p), float(q)) for p, q in scene.stain]
    damp = shade(scene.table[1], 0.9)
    pen.face([(x + p, y + q, 0.0) for p, q in outline], damp)
    left = _beyond(outline, side, at.wipe_front(scene, stage))
    if len(left) > 2 and stage < 1.0:
        pen.face([(x + p, y + q, 0.0) for p, q in left], colour)
        cx, cy = sum(p for p, _ in left) / len(left), sum(q for _, q in left) / len(left)
        gleam = [(x + cx + 0.55 * (p - cx) - pen.light * 0.012, y + cy + 0.5 * (q - cy) + 0.014, 0.0) for p, q in left]
        pen.face(gleam, shade(colour, 1.16))
    sx, sy, sz = at.sponge_centre(scene, stage)
    pen.shadow(sx, sy, at.SPONGE_LENGTH * 0.62, at.SPONGE_WIDTH * 0.6, 0.015, 0.5)
    half_x, half_y = at.SPONGE_LENGTH / 2, at.SPONGE_WIDTH / 2
    sponge = scene.colours["sponge"]
    pen.box((sx - half_x, sy - half_y, 0.0), (sx + half_x, sy + half_y, sz * 1.1), shade(sponge, 0.86))
    pen.box((sx - half_x, sy - half_y, sz * 1.1), (sx + half_x, sy + half_y, sz * 2), sponge)


def _beyond(outline: list[tuple[float, float]], side: float, limit: float) -> list[tuple[float, float]]:
    """The part of a polygon where side * x > limit (Sutherland-Hodgman, one edge)."""
    out: list[tuple[float, float]] = []
    for (px, py), (qx, qy) in zip(outline, outline[1:] + outline[:1], strict=True):
        p_in, q_in = side * px > limit, side * qx > limit
        if p_in:
            out.append((px, py))
        if p_in != q_in:
            k = (limit - side * px) / (side * qx - side * px)
            out.append((px + k * (qx - px), py + k * (qy - py)))
    return out


def jug(pen: Pen, scene: Scene, stage: float) -> None:
    """A jug with a handle, the bowl it is poured into, and the stream between them."""
    bx, by = at.bowl_place(scene)
    base, rim = at.jug_axis(scene, stage)
    side = scene.sides["jug"]
    drink = (108, 168, 206)
    bowl = scene.colours["bowl"]
    pen.tube((bx, by, 0.0), (bx, by, 0.055), at.BOWL_RADIUS * 0.55, at.BOWL_RADIUS, bowl, shade(bowl, 0.6))
    if stage > 0.35:
        fill = min((stage - 0.35) / 0.65, 1.0)
        pen.disc((bx, by, 0.03 + 0.022 * fill), at.BOWL_RADIUS * (0.42 + 0.4 * fill), drink)
    tilt = at.JUG_TILT * stage
    ux, uz = math.cos(tilt), -side * math.sin(tilt)  # across the jug, in the x-z plane
    lip: Point = (rim[0] + side * ux * at.JUG_RADIUS, rim[1], rim[2] + side * uz * at.JUG_RADIUS)
    if 0.4 < stage < 0.97:
        thick = 0.006 + 0.012 * math.sin((stage - 0.4) / 0.57 * math.pi)
        foot = lip[0] + side * 0.012
        pen.face(
            [
                (lip[0] - thick, by, lip[2]),
                (lip[0] + thick, by, lip[2]),
                (foot + thick, by, 0.045),
                (foot - thick, by, 0.045),
            ],
            shade(drink, 1.15),
        )
    colour = scene.colours["jug"]
    ends = []
    for along in (0.25, 0.5, 0.8):
        out = at.JUG_RADIUS + (0.045 if along == 0.5 else 0.0)
        cx, cz = base[0] + (rim[0] - base[0]) * along, base[2] + (rim[2] - base[2]) * along
        ends.append((cx - side * ux * out, base[1], cz - side * uz * out))
    pen.limb(ends[0], ends[1], 0.010, 0.010, shade(colour, 0.85))
    pen.limb(ends[1], ends[2], 0.010, 0.010, shade(colour, 0.85))
    pen.tube(base, rim, at.JUG_RADIUS, at.JUG_RADIUS * 0.8, colour, drink if stage < 0.9 else shade(colour, 0.5))


def jug_shadow(pen: Pen, scene: Scene, stage: float) -> None:
    bx, by = at.bowl_place(scene)
    pen.shadow(bx, by, at.BOWL_RADIUS * 0.9, at.BOWL_RADIUS * 0.9, 0.03, 0.5)
    base, rim = at.jug_axis(scene, stage)
    low = max(min(base[2], rim[2]), 0.0)
    pen.shadow((base[0] + rim[0]) / 2, by, 0.07 + abs(base[0] - rim[0]) * 0.4, 0.065, low + 0.03, 0.5)


def _cup(pen: Pen, scene: Scene, base: Point, factor: float) -> None:
    x, y, z = base
    colour = shade(scene.colours["cup"], factor)
    pen.tube(base, (x, y, z + at.CUP_HEIGHT), at.CUP_RADIUS * 0.72, at.CUP_RADIUS, colour, shade(colour, 0.5))


def cup(pen: Pen, scene: Scene, stage: float) -> None:
    """Two cups; one is put into the other."""
    x, y = at.other_cup(scene)
    _cup(pen, scene, (x, y, 0.0), 0.82)
    _cup(pen, scene, at.cup_base(scene, stage), 1.08)


def cup_shadow(pen: Pen, scene: Scene, stage: float) -> None:
    x, y = at.other_cup(scene)
    pen.shadow(x, y, at.CUP_RADIUS, at.CUP_RADIUS, 0.04, 0.5)
    x, y, z = at.cup_base(scene, stage)
    pen.shadow(x, y, at.CUP_RADIUS, at.CUP_RADIUS, z + 0.04, 0.5)


def can(pen: Pen, scene: Scene, stage: float) -> None:
    """A can with a label, standing on the table."""
    x, y = at.can_place(scene, stage)
    h, colour = at.CAN_HEIGHT, scene.colours["can"]
    tin = (206, 208, 212)
    pen.tube((x, y, 0.0), (x, y, h), at.CAN_RADIUS, at.CAN_RADIUS, colour)
    pen.tube((x, y, h * 0.94), (x, y, h), at.CAN_RADIUS, at.CAN_RADIUS * 0.9, tin, shade(tin, 0.86))


def can_mark(pen: Pen, scene: Scene) -> None:
    """The mark on the table that the can is pushed to: a ring and a dot."""
    x, y = at.can_place(scene, 1.0)
    colour = scene.colours["mark"]
    for radius, paint in ((0.068, colour), (0.05, (246, 244, 238)), (0.026, colour)):
        pen.disc((x, y, 0.0), radius, paint)


def can_shadow(pen: Pen, scene: Scene, stage: float) -> None:
    x, y = at.can_place(scene, stage)
    pen.shadow(x, y, at.CAN_RADIUS * 1.1, at.CAN_RADIUS * 1.1, 0.04, 0.55)


def gripper_shadow(pen: Pen, tip: Point) -> None:
    pen.shadow(tip[0], tip[1], 0.06, 0.05, max(tip[2], 0.0) + 0.05, 0.42)


def gripper(pen: Pen, scene: Scene, tip: Point, width: float) -> None:
    """Two fingers and a palm; `width` m between the fingers."""
    x, y, z = tip
    dark = (62, 66, 74)
    half, thick, length = width / 2, 0.015, 0.062
    for side in (-1.0, 1.0):
        inner = x + side * half
        x0, x1 = sorted((inner, inner + side * thick))
        pen.box((x0, y - 0.012, z - 0.012), (x1, y + 0.012, z + length), dark)
    span = half + thick + 0.006
    pen.box((x - span, y - 0.018, z + length), (x + span, y + 0.018, z + length + 0.028), shade(dark, 1.12))
    pen.limb((x, y, z + length + 0.035), wrist(tip), 0.026, 0.03, scene.arm)


def wrist(tip: Point) -> Point:
    """Where the hand ends and the arm begins, m."""
    return tip[0], tip[1], tip[2] + 0.15


def arm(pen: Pen, scene: Scene, tip: Point) -> None:
    """Forearm and upper arm from the wrist to a shoulder outside the picture; the elbow points up."""
    (sx, sy, sz), (wx, wy, wz) = scene.shoulder, wrist(tip)
    reach = math.dist((sx, sy, sz), (wx, wy, wz))
    up = math.sqrt(max(0.80**2 - (reach / 2) ** 2, 0.0)) * 0.55
    elbow = ((sx + wx) / 2, (sy + wy) / 2 + 0.05, (sz + wz) / 2 + up)
    joint = (84, 90, 100)
    pen.limb((sx, sy, sz), elbow, 0.06, 0.05, scene.arm)
    pen.limb(elbow, (wx, wy, wz), 0.045, 0.034, scene.arm)
    for centre, radius in ((elbow, 0.05), ((wx, wy, wz), 0.034)):
        px, k = pen.view(centre), pen.view.pixels_per_metre(centre)
        pen.polygon([(px[0] + radius * k * c, px[1] + radius * k * s) for c, s in CIRCLE], joint)
        inner = radius * 0.5 * k
        pen.polygon([(px[0] + inner * c, px[1] + inner * s) for c, s in CIRCLE], shade(joint, 1.35))


DRAW: dict[str, Stroke] = {"drawer": drawer, "jug": jug, "cup": cup, "block": block, "table": spill, "can": can}
SHADOW: dict[str, Stroke] = {
    "drawer": drawer_shadow,
    "jug": jug_shadow,
    "cup": cup_shadow,
    "block": block_shadow,
    "can": can_shadow,
}
"""Thing → its shadow; the spill lies flat, and its sponge brings its own."""
