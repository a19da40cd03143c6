"""A lit part in, a place on it with a defect out: pit, scratch, stain, chip, fibre, missing print.

All of it in linear light and in pixels of the frame; knows nothing about lenses, sensors or visibility.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fbft_edge.frames.frame import Bool, Float32

Window = tuple[slice, slice]
_Plane = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Defect:
    """One defect on a rendered part.

    Attributes:
        kind: One of `KINDS`.
        size_px: Nominal diameter or length.
        box_xyxy: Left, top, right, bottom of its visible pixels; right and bottom are exclusive.
        area_px: Number of its visible pixels.
    """

    kind: str
    size_px: float
    box_xyxy: tuple[int, int, int, int]
    area_px: int


@dataclass(frozen=True, slots=True)
class Canvas:
    """A lit part before the lens.

    Attributes:
        light: (height, width, 3) float32, linear, 1 is full scale.
        planes: (height, width, 4) float32 in [0, 1]: part cover, light on the belt, grain, ink
            (see `fbft_edge.synthetic.layout.Layout`).
    """

    light: Float32
    planes: Float32


@dataclass(frozen=True, slots=True)
class _Spot:
    """The surroundings of one defect: light and planes as in `Canvas`, coordinates in px from its centre."""

    light: Float32
    planes: Float32
    x: Float32
    y: Float32
    size_px: float


def drawn_defect(canvas: Canvas, taken: Bool, size_px: float, rng: np.random.Generator) -> tuple[str, Window, Float32]:
    """Choose a kind and a place for a defect, and draw it.

    Args:
        canvas: Stays as it is.
        taken: (height, width) bool, True where other defects lie; they are avoided while there is room.
        size_px: Nominal diameter or length.
        rng: Makes every choice.

    Returns:
        The kind, the window of the frame that it may change, and the changed light in that window.
    """
    kind, suitable = _kind_and_surface(canvas.planes, size_px, rng)
    centre = _place(suitable, taken, size_px, rng)
    window = _window_around(centre, 0.65 * size_px + 8, taken.shape)
    y, x = np.mgrid[window]
    spot = _Spot(
        canvas.light[window],
        canvas.planes[window],
        (x - centre[1]).astype(np.float32),
        (y - centre[0]).astype(np.float32),
        size_px,
    )
    return kind, window, KINDS[kind](spot, rng)


def _kind_and_surface(planes: Float32, size_px: float, rng: np.random.Generator) -> tuple[str, Bool]:
    """A kind that occurs at this size, and where; there is always bare metal for a pit."""
    kinds = [kind for kind in KINDS if size_px >= _SMALLEST_PX.get(kind, 0)]
    rng.shuffle(kinds)
    surfaces = ((kind, _SURFACE[kind](planes)) for kind in kinds)
    return next((kind, surface) for kind, surface in surfaces if surface.any())


def _place(suitable: Bool, taken: Bool, size_px: float, rng: np.random.Generator) -> tuple[int, int]:
    """(row, column) on a suitable surface, clear of other defects and wholly on the surface if possible."""
    columns = taken.shape[1]
    candidates = rng.choice(np.flatnonzero(suitable), 32)
    places: list[tuple[int, int]] = [divmod(int(index), columns) for index in candidates]
    crowding = [_crowding(suitable, taken, place, size_px) for place in places]
    return places[int(np.argmin(crowding))]


def _crowding(suitable: Bool, taken: Bool, place: tuple[int, int], size_px: float) -> float:
    near, around = (_window_around(place, reach, taken.shape) for reach in (size_px / 2, 0.65 * size_px + 8))
    return float(10 * taken[around].any() + 1 - suitable[near].mean())


def _window_around(centre: tuple[int, int], reach: float, shape: tuple[int, ...]) -> Window:
    row, column, margin = *centre, int(np.ceil(reach))
    return (
        slice(max(row - margin, 0), min(row + margin + 1, shape[0])),
        slice(max(column - margin, 0), min(column + margin + 1, shape[1])),
    )


def _blob(spot: _Spot, rng: np.random.Generator, roughness: float, softness: float = 1.0) -> Float32:
    """Coverage in [0, 1] of an irregular disc of the spot's size, soft over `softness` px."""
    angle, radius = np.arctan2(spot.y, spot.x), np.hypot(spot.x, spot.y)
    edge = np.ones_like(angle)
    for waves in range(2, 6):
        amplitude, phase = rng.uniform(0, roughness / waves), rng.uniform(0, 2 * np.pi)
        edge += amplitude * np.cos(waves * angle + phase)
    return np.clip(0.5 + (edge * (spot.size_px / 2) - radius) / softness, 0, 1)


def _curve(spot: _Spot, rng: np.random.Generator, bend: float) -> tuple[Float32, Float32]:
    """Distance in px to a bent line as long as the spot's size, and the place along it, -1 to 1."""
    turn, half = rng.uniform(0, np.pi), (spot.size_px / 2)
    arch, wave = (amplitude * half for amplitude in rng.uniform(-bend, bend, 2))
    u = spot.x * np.cos(turn) + spot.y * np.sin(turn)
    v = spot.y * np.cos(turn) - spot.x * np.sin(turn)
    along = np.clip(u / half, -1, 1)
    offset = v - arch * (1 - 2 * along * along) - wave * np.sin(np.pi * along)
    slope = (wave * np.pi * np.cos(np.pi * along) - 4 * arch * along) / half
    return np.hypot(offset / np.sqrt(1 + slope * slope), u - along * half), along


def _roughness(spot: _Spot, rng: np.random.Generator, grain_px: float) -> Float32:
    """Smooth noise around 0, its features about `grain_px` wide, mostly within -0.3 to 0.3."""
    noise = grain_px * rng.uniform(-0.6, 0.6, spot.x.shape)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), grain_px), np.float32)


def _dimmed(light: Float32, factor: _Plane) -> Float32:
    return np.asarray(light * factor[..., None], np.float32)


def _mixed(light: Float32, cover: _Plane, colour: _Plane) -> Float32:
    return np.asarray(light + cover[..., None] * (colour - light), np.float32)


def _pit(spot: _Spot, rng: np.random.Generator) -> Float32:
    """A rough cavity: dark towards the lamp, a bright lip on the far side."""
    cover = _blob(spot, rng, 0.5, max(1.0, 0.08 * spot.size_px))
    tilt = np.clip((0.55 * spot.x + 0.83 * spot.y) / (spot.size_px / 2), -1, 1)
    factor = rng.uniform(0.12, 0.28) * (1 + 0.7 * tilt) + _roughness(spot, rng, 1.2) * min(1, spot.size_px / 12)
    lip = np.exp(-np.square((np.hypot(spot.x, spot.y) - 0.56 * spot.size_px) / (0.10 * spot.size_px + 0.6)))
    glint = 0.5 * lip * np.clip(tilt, 0, 1)
    return _dimmed(spot.light, 1 + cover * (np.maximum(factor, 0.05) - 1) + glint * (1 - cover))


def _scratch(spot: _Spot, rng: np.random.Generator) -> Float32:
    """A thin groove whose depth varies: a bright burr along a dark line."""
    distance, along = _curve(spot, rng, 0.08)
    half = float(rng.uniform(0.7, 0.95)) + 0.01 * spot.size_px
    depth = 0.8 + 0.2 * np.sin(along * rng.uniform(3, 9))
    groove = np.clip(half + 0.5 - distance, 0, 1) * depth
    burr = np.clip(half + 1.7 - distance, 0, 1) * (1 - groove)
    return _dimmed(spot.light, 1 - 0.8 * groove + 0.35 * burr)


def _stain(spot: _Spot, rng: np.random.Generator) -> Float32:
    """Dried oil: a brown film, thickest along its rim."""
    soft = max(1.2, 0.12 * spot.size_px)
    film = _blob(spot, rng, 0.4, soft)
    rim = 4 * film * (1 - film)
    density = rng.uniform(0.40, 0.55) * film + 0.22 * rim
    absorbed = np.array([0.85, 1.05, 1.45], np.float32)
    return spot.light * (1 - np.clip(density[..., None] * absorbed, 0, 0.9))


def _chip(spot: _Spot, rng: np.random.Generator) -> Float32:
    """Material broken out of an edge: a dark rough fracture, its crest bright where it faces the lamp."""
    cover = _blob(spot, rng, 0.7) * spot.planes[..., 0]
    tilt = np.clip((0.55 * spot.x + 0.83 * spot.y) / spot.size_px, -1, 1)
    fracture = np.clip(0.07 + 0.05 * tilt + 0.3 * _roughness(spot, rng, 0.9), 0.012, 0.3)
    broken = _mixed(spot.light, cover, fracture[..., None] * np.array([1, 1, 1.04], np.float32))
    crest = 4 * cover * (1 - cover) * np.clip(tilt + 0.1, 0, 1)
    return _mixed(broken, crest, np.array([0.7, 0.7, 0.71], np.float32))


def _fibre(spot: _Spot, rng: np.random.Generator) -> Float32:
    """A foreign thread lying on the part, with its soft shadow."""
    distance, _ = _curve(spot, rng, 0.3)
    shadow = np.exp(-np.square(distance / 2.2)) * 0.30
    thread = np.clip(1.3 - distance, 0, 1)
    colours = np.array([[0.02, 0.05, 0.22], [0.02, 0.02, 0.02], [0.30, 0.03, 0.03]], np.float32)
    return _mixed(_dimmed(spot.light, 1 - shadow), thread, colours[rng.integers(len(colours))])


def _missing_print(spot: _Spot, rng: np.random.Generator) -> Float32:
    """Ink that flaked off: the surface below shows between crumbs that are left."""
    flakes = np.clip(1.2 + 8 * _roughness(spot, rng, 1.2), 0, 1)
    gone = _blob(spot, rng, 0.35) * flakes
    ink = INK_DARKENS * spot.planes[..., 3]
    return _dimmed(spot.light, 1 + gone * ink / (1 - ink))


INK_DARKENS = 0.86  # share of the light that full ink takes away

KINDS: dict[str, Callable[[_Spot, np.random.Generator], Float32]] = {
    "pit": _pit,
    "scratch": _scratch,
    "stain": _stain,
    "chip": _chip,
    "fibre": _fibre,
    "missing_print": _missing_print,
}
_SMALLEST_PX = {"scratch": 5.0, "fibre": 8.0, "missing_print": 12.0}

_SURFACE: dict[str, Callable[[Float32], Bool]] = {
    "pit": lambda planes: planes[..., 2] > 0.25,
    "scratch": lambda planes: planes[..., 2] > 0.25,
    "stain": lambda planes: planes[..., 2] > 0.25,
    "chip": lambda planes: np.abs(planes[..., 0] - 0.6) < 0.35,
    "fibre": lambda planes: planes[..., 0] > 0.99,
    "missing_print": lambda planes: planes[..., 3] > 0.93,
}
