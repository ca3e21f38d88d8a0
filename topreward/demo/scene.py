"""What stands where on the table, and where each thing is when its task is `stage` done.

In: a seed. Out: a Scene (places, shapes, colours, camera) and pure functions from a task's stage in [0, 1]
to positions. Metres throughout: x to the right, y away from the camera, z up from the table top.
Knows nothing of time, episodes or pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from topreward.errors import ConfigError

Point = tuple[float, float, float]
"""(x, y, z), m."""
Colour = tuple[int, int, int]
"""RGB, 0..255."""

# How far each thing travels between stage 0 and stage 1. The same in every episode: so that one frame is
# enough to read the stage, however the episode began.
DRAWER_TRAVEL = 0.17  # m
LIFT_HEIGHT = 0.24  # m
JUG_TILT = math.radians(105)
CAN_TRAVEL = 0.22  # m
CUP_DISTANCE, CUP_LIFT = 0.18, 0.19  # m

CABINET_WIDTH, CABINET_DEPTH, CABINET_HEIGHT = 0.23, 0.15, 0.15  # m
BLOCK_EDGE = 0.105  # m
CAN_RADIUS, CAN_HEIGHT = 0.042, 0.11  # m
CUP_RADIUS, CUP_HEIGHT, CUP_NEST = 0.058, 0.115, 0.065  # m; a stacked cup stands CUP_NEST above the other
JUG_RADIUS, JUG_HEIGHT, BOWL_RADIUS, BOWL_DISTANCE = 0.066, 0.17, 0.085, 0.21  # m
SPONGE_LENGTH, SPONGE_WIDTH, SPONGE_HEIGHT = 0.05, 0.14, 0.035  # m

# (thing, width of the strip of table it needs, m), by row; the order within a row is drawn by lot.
BACK_ROW = (("drawer", 0.24), ("jug", 0.39), ("cup", 0.3))
FRONT_ROW = (("block", 0.14), ("table", 0.36), ("can", 0.33))
THINGS = tuple(name for name, _ in BACK_ROW + FRONT_ROW)
ROW_WIDTH = {"back": 1.03, "front": 0.85}  # m, what the camera is sure to see
ROW_DIVIDE = 0.37  # m, y between the two rows

TABLES: tuple[tuple[str, Colour], ...] = (
    ("planks", (203, 165, 118)),
    ("planks", (222, 194, 154)),
    ("planks", (174, 132, 93)),
    ("cloth", (206, 216, 216)),
    ("cloth", (226, 214, 196)),
    ("cloth", (163, 186, 196)),
    ("stone", (222, 219, 212)),
    ("stone", (188, 196, 190)),
)
WALLS: tuple[Colour, ...] = ((226, 221, 210), (196, 209, 214), (214, 203, 190), (186, 196, 184), (205, 200, 214))
ARMS: tuple[Colour, ...] = ((236, 236, 232), (244, 180, 92), (120, 130, 142), (232, 232, 238))
COLOURS: dict[str, tuple[Colour, ...]] = {
    "drawer": ((150, 104, 66), (238, 234, 226), (92, 122, 128), (178, 134, 90)),
    "front": ((196, 84, 66), (86, 132, 150), (232, 190, 104), (112, 146, 104)),
    "block": ((214, 66, 56), (44, 112, 188), (238, 176, 42), (54, 148, 92)),
    "stain": ((92, 54, 34), (150, 36, 48), (52, 58, 104)),
    "sponge": ((244, 212, 76), (236, 142, 168), (132, 204, 176)),
    "jug": ((244, 240, 230), (66, 118, 148), (206, 120, 90), (118, 152, 132)),
    "bowl": ((232, 226, 216), (84, 110, 140), (190, 142, 110)),
    "cup": ((236, 128, 74), (88, 158, 160), (176, 96, 132), (246, 204, 96)),
    "can": ((206, 48, 52), (36, 130, 104), (50, 86, 160), (238, 238, 234)),
    "mark": ((206, 54, 60), (44, 100, 170), (30, 128, 92)),
}


@dataclass(frozen=True)
class Camera:
    """Where the camera stands and looks; one pose per episode."""

    eye: Point
    target: Point
    focal: float
    """In units of the picture's shorter side."""


@dataclass(frozen=True, eq=False)
class Scene:
    """Everything about an episode's world that does not change while it runs."""

    places: dict[str, tuple[float, float]]
    """Thing → (x, y) of the middle of its strip, m."""
    sides: dict[str, float]
    """Thing → +1 where its task moves it to the right, -1 to the left."""
    can_slant: float
    """Angle of the can's way to its mark against the x axis, rad."""
    stain: NDArray[np.float64]
    """(M, 2) outline of the spill around its middle, m."""
    colours: dict[str, Colour]
    table: tuple[str, Colour]
    wall: Colour
    arm: Colour
    shoulder: Point
    """Where the arm is mounted, m; always outside the picture."""
    light: float
    """+1: the light comes from the left, -1: from the right."""
    texture: int
    """Seed of the table's grain."""
    camera: Camera
    wiped_at: NDArray[np.float64] = field(repr=False)
    """(201,) the x (times side) up to which the spill must be wiped for stages 0, 0.005, …, 1, m."""


def make_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene by lot."""
    places = _places(rng, BACK_ROW, ROW_WIDTH["back"], 0.61) | _places(rng, FRONT_ROW, ROW_WIDTH["front"], 0.12)
    sides = {thing: float(rng.choice([-1.0, 1.0])) for thing in THINGS}
    stain = _stain(rng)
    colours = {name: _tinted(rng, options[rng.integers(len(options))]) for name, options in COLOURS.items()}
    style, base = TABLES[rng.integers(len(TABLES))]
    mount = rng.integers(3)
    shoulder = (
        (float((-1.05, 1.05)[mount]), float(rng.uniform(0.35, 0.75)), float(rng.uniform(0.25, 0.45)))
        if mount < 2
        else (float(rng.uniform(-0.5, 0.5)), 1.3, float(rng.uniform(0.35, 0.5)))
    )
    return Scene(
        places=places,
        sides=sides,
        can_slant=float(rng.uniform(-0.35, 0.35)),
        stain=stain,
        colours=colours,
        table=(style, _tinted(rng, base, 4)),
        wall=_tinted(rng, WALLS[rng.integers(len(WALLS))], 5),
        arm=_tinted(rng, ARMS[rng.integers(len(ARMS))], 6),
        shoulder=shoulder,
        light=float(rng.choice([-1.0, 1.0])),
        texture=int(rng.integers(2**31)),
        camera=_camera(rng),
        wiped_at=_area_quantiles(stain * (sides["table"], 1.0)),
    )


def _places(
    rng: np.random.Generator, row: tuple[tuple[str, float], ...], width: float, y: float
) -> dict[str, tuple[float, float]]:
    order = [row[i] for i in rng.permutation(len(row))]
    spare = width - sum(need for _, need in order)
    gaps = rng.dirichlet(np.full(len(order) + 1, 3.0)) * spare
    places, x = {}, -width / 2
    for (name, need), gap in zip(order, gaps[:-1], strict=True):
        x += float(gap)
        places[name] = (x + need / 2, y + float(rng.uniform(-0.03, 0.03)))
        x += need
    return places


def _tinted(rng: np.random.Generator, colour: Colour, spread: float = 7.0) -> Colour:
    red, green, blue = (
        int(np.clip(round(c + d), 0, 255)) for c, d in zip(colour, rng.normal(0, spread, 3), strict=True)
    )
    return red, green, blue


def _camera(rng: np.random.Generator) -> Camera:
    dx, dy, dz = rng.uniform(-1, 1, 3) * (0.09, 0.04, 0.06)
    tx, ty = rng.uniform(-1, 1, 2) * (0.02, 0.02)
    return Camera(
        eye=(float(dx), -0.75 + float(dy), 1.32 + float(dz)),
        target=(float(tx), 0.37 + float(ty), 0.05),
        focal=float(rng.uniform(1.55, 1.62)),
    )


def _stain(rng: np.random.Generator) -> NDArray[np.float64]:
    """A blob of about 0.24 x 0.16 m: a circle bent by a few slow waves."""
    theta = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    waves = sum(rng.uniform(0.03, 0.08) * np.sin(k * theta + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 5))
    radius = 1.0 + waves
    return np.stack([0.118 * radius * np.cos(theta), 0.082 * radius * np.sin(theta)], axis=1)


def _area_quantiles(outline: NDArray[np.float64]) -> NDArray[np.float64]:
    """(201,) x positions left of which 0, 1/200, …, 1 of the outline's area lies, m.

    The outline is star-shaped and cut in thin upright slices; a slice's height is its upper edge minus its lower.
    """
    x = np.linspace(outline[:, 0].min(), outline[:, 0].max(), 257)
    start = int(outline[:, 0].argmax())
    ring = np.roll(outline, -start, axis=0)
    turn = int(ring[:, 0].argmin())
    one, other = ring[: turn + 1], np.concatenate([ring[turn:], ring[:1]])
    heights = [
        np.interp(x, edge[:, 0][order], edge[:, 1][order])
        for edge in (one, other)
        for order in [np.argsort(edge[:, 0], kind="stable")]
    ]
    height = np.abs(heights[0] - heights[1])
    area = np.concatenate([[0.0], np.cumsum((height[1:] + height[:-1]) / 2)])
    return np.interp(np.linspace(0, 1, 201), area / area[-1], x)


def smooth(u: float) -> float:
    """0 → 1 with flat ends; clamped outside [0, 1]."""
    u = min(max(u, 0.0), 1.0)
    return u * u * (3 - 2 * u)


def drawer_front(scene: Scene, stage: float) -> Point:
    """Middle of the drawer's front panel. Closing: stage 1 is shut."""
    x, y = scene.places["drawer"]
    return x, y - 0.03 - DRAWER_TRAVEL * (1 - stage), CABINET_HEIGHT * 0.5


def block_centre(scene: Scene, stage: float) -> Point:
    """Middle of the block; it rises straight up."""
    x, y = scene.places["block"]
    return x, y, BLOCK_EDGE / 2 + LIFT_HEIGHT * stage


def wipe_front(scene: Scene, stage: float) -> float:
    """x (m, times the scene's side) relative to the spill's middle up to which it is wiped: area = stage."""
    return float(np.interp(stage * 200, np.arange(201), scene.wiped_at))


def sponge_centre(scene: Scene, stage: float) -> Point:
    """The sponge lies where the wiping has got to, and sweeps up and down a little on its way."""
    x, y = scene.places["table"]
    along = wipe_front(scene, stage) - SPONGE_LENGTH * 0.6 * (1 - stage) + SPONGE_LENGTH * 0.4 * stage
    return x + scene.sides["table"] * along, y + 0.02 * math.sin(stage * 6 * math.pi), SPONGE_HEIGHT / 2


def jug_axis(scene: Scene, stage: float) -> tuple[Point, Point]:
    """(middle of the base, middle of the rim) of the jug: it is lifted towards the bowl and tilted over it."""
    x, y = scene.places["jug"]
    side = scene.sides["jug"]
    start, end = x - side * 0.085, x + side * (BOWL_DISTANCE - 0.19)
    raised = smooth(stage / 0.6)
    cx, cz = start + (end - start) * raised, JUG_HEIGHT / 2 + 0.115 * raised
    tilt = JUG_TILT * stage
    dx, dz = side * math.sin(tilt) * JUG_HEIGHT / 2, math.cos(tilt) * JUG_HEIGHT / 2
    return (cx - dx, y, cz - dz), (cx + dx, y, cz + dz)


def bowl_place(scene: Scene) -> tuple[float, float]:
    """(x, y) of the bowl that the jug is poured into."""
    x, y = scene.places["jug"]
    return x + scene.sides["jug"] * (BOWL_DISTANCE - 0.085), y


def cup_base(scene: Scene, stage: float) -> Point:
    """Middle of the moving cup's base: up, across, and down onto the other cup."""
    x, y = scene.places["cup"]
    side = scene.sides["cup"]
    across = smooth((stage - 0.12) / 0.7)
    up = CUP_LIFT * smooth(stage / 0.45) - (CUP_LIFT - CUP_NEST) * smooth((stage - 0.6) / 0.4)
    return x + side * CUP_DISTANCE * (across - 0.5), y, up


def other_cup(scene: Scene) -> tuple[float, float]:
    """(x, y) of the cup that is stacked upon."""
    x, y = scene.places["cup"]
    return x + scene.sides["cup"] * CUP_DISTANCE * 0.5, y


def can_way(scene: Scene) -> tuple[float, float]:
    """Unit vector on the table from the can's first place to its mark."""
    return scene.sides["can"] * math.cos(scene.can_slant), math.sin(scene.can_slant)


def can_place(scene: Scene, stage: float) -> tuple[float, float]:
    """(x, y) of the can; stage 1 is on the mark."""
    x, y = scene.places["can"]
    dx, dy = can_way(scene)
    return x + dx * CAN_TRAVEL * (stage - 0.5), y + dy * CAN_TRAVEL * (stage - 0.5)


def contact(scene: Scene, thing: str, stage: float) -> Point:
    """Where the gripper's tip is while it works on `thing`."""
    if thing == "drawer":
        x, y, z = drawer_front(scene, stage)
        return x, y - 0.03, z - 0.01
    if thing == "block":
        x, y, z = block_centre(scene, stage)
        return x, y, z + 0.01
    if thing == "table":
        x, y, z = sponge_centre(scene, stage)
        return x, y, z + 0.005
    if thing == "jug":
        base, rim = jug_axis(scene, stage)
        side = scene.sides["jug"]
        tilt = JUG_TILT * stage
        reach = JUG_RADIUS + 0.035  # the handle is on the side away from the bowl
        x, z = (base[0] * 0.35 + rim[0] * 0.65), (base[2] * 0.35 + rim[2] * 0.65)
        return x - side * math.cos(tilt) * reach, base[1], z + math.sin(tilt) * reach
    if thing == "cup":
        x, y, z = cup_base(scene, stage)
        return x, y, z + CUP_HEIGHT - 0.02
    if thing == "can":
        x, y = can_place(scene, stage)
        dx, dy = can_way(scene)
        return x - dx * (CAN_RADIUS + 0.022), y - dy * (CAN_RADIUS + 0.022), 0.045
    raise ConfigError(f"unknown thing {thing!r}; want one of {', '.join(THINGS)}")
