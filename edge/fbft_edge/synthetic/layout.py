"""A frame size in, the drawing of the synthetic product at that size out: a machined aluminium housing cover.

Everything that is the same on every part is baked here once; knows nothing about seeds, poses or defects.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fbft_edge.frames.frame import Float32, Uint8

_ALUMINIUM = np.array([0.37, 0.375, 0.385], np.float32)
_RUBBER = np.array([0.012, 0.012, 0.014], np.float32)
_LABEL = np.array([0.66, 0.655, 0.62], np.float32)
_BORE = np.array([0.010, 0.010, 0.011], np.float32)
_MATRIX_INK = 225  # of 255: lighter than text, so that no print is lost here, where a person could not see it
_LIGHT_XY = (-0.55, -0.83)  # towards the lamp: above the frame, a little to the left


@dataclass(frozen=True, slots=True)
class Layout:
    """The product seen straight from above, in linear light; lengths scale with the smaller frame side.

    Attributes:
        radiance: (height, width, 3) float32 in [0, 1], the part without print and without grain.
        planes: (height, width, 4) float32 in [0, 1]: how much of the pixel the part covers, how much light
            reaches the belt beside it, how strongly the surface shows grain, how much ink lies on it.
    """

    radiance: Float32
    planes: Float32


@dataclass(frozen=True, slots=True)
class _Window:
    """A square of the frame that a feature is drawn into, with coordinates relative to the feature, in px."""

    rows: slice
    columns: slice
    x: Float32
    y: Float32

    @property
    def radius(self) -> Float32:
        """(rows, columns) distance from the feature's centre."""
        return np.hypot(self.x, self.y)


@lru_cache(maxsize=2)
def layout_of(height: int, width: int) -> Layout:
    """Draw the product for one frame size; the last two sizes are kept."""
    unit = float(min(height, width))
    x = (np.arange(width, dtype=np.float32) - (width - 1) / 2)[None, :]
    y = (np.arange(height, dtype=np.float32) - (height - 1) / 2)[:, None]
    half_x, half_y = 0.5 * width - 0.075 * unit, 0.5 * height - 0.075 * unit

    outline = _rounded_box(x, y, half_x, half_y, 0.055 * unit)
    radiance = _milled_face(x, y, unit)[..., None] * _ALUMINIUM
    planes = np.zeros((height, width, 4), np.float32)
    planes[..., 0] = _inside(outline)
    planes[..., 1] = _belt_light(planes[..., 0], unit)
    planes[..., 2] = _inside(outline + 0.014 * unit)
    radiance *= _bevel(outline, -0.0065 * unit, 0.0065 * unit)[..., None]
    inset = 0.118 * unit
    _lay_gasket(radiance, planes, _rounded_box(x, y, half_x - inset, half_y - inset, 0.06 * unit), unit)

    layout = Layout(radiance, planes)
    for centre_x in (-1, 0, 1):
        for centre_y in (-1, 0, 1):
            if (centre_x, centre_y) != (0, 0):
                at = (centre_x * (half_x - 0.055 * unit), centre_y * (half_y - 0.055 * unit))
                _drill(layout, at, 0.0185 * unit, 0.034 * unit)
    _turn_boss(layout, (0.0, -0.045 * unit), unit)
    _print_all(layout, unit)
    return layout


def _rounded_box(x: Float32, y: Float32, half_x: float, half_y: float, corner: float) -> Float32:
    """Signed distance in px to a rounded rectangle, negative inside."""
    beyond_x, beyond_y = np.abs(x) - (half_x - corner), np.abs(y) - (half_y - corner)
    outside = np.hypot(np.maximum(beyond_x, 0), np.maximum(beyond_y, 0))
    distance = outside + np.minimum(np.maximum(beyond_x, beyond_y), 0) - corner
    return np.asarray(distance, np.float32)


def _inside(distance: NDArray[np.floating[Any]], softness: float = 1.0) -> Float32:
    """Coverage in [0, 1] of the inside of a signed distance, anti-aliased over `softness` px."""
    return np.asarray(np.clip(0.5 - distance / softness, 0, 1), np.float32)


def _cover(patch: Float32, cover: Float32, colour: Float32) -> None:
    """Lay a colour over the patch, in place."""
    patch += cover[..., None] * (colour - patch)


def _bevel(distance: Float32, centre: float, half_width: float) -> Float32:
    """Brightness factor of a slope that falls outwards, `half_width` px to both sides of a distance."""
    down, right = np.gradient(distance)
    towards_lamp = right * _LIGHT_XY[0] + down * _LIGHT_XY[1]
    slope = _inside(np.abs(distance - centre) - half_width, max(half_width, 1.0))
    return np.asarray(1 + slope * (0.75 * towards_lamp - 0.05), np.float32)


def _milled_face(x: Float32, y: Float32, unit: float) -> Float32:
    """Brightness of the flat face: arcs of a fly cutter under a soft band of reflected lamp light."""
    radius, pitch = 0.62 * unit, max(0.011 * unit, 3.0)
    sagitta = radius - np.sqrt(np.maximum(radius * radius - y * y, 0))
    phase = (x + sagitta) * (2 * np.pi / pitch)
    arcs = np.sin(phase) + 0.35 * np.sin(2.31 * phase)
    band = np.exp(-np.square((0.5 * x + y + 0.12 * unit) / (0.42 * unit)))
    return np.asarray((0.74 + 0.50 * band) * (1 + 0.028 * arcs), np.float32)


def _belt_light(cover: Float32, unit: float) -> Float32:
    """Share of the lamp's light that reaches the belt beside the part: its soft cast shadow."""
    shift = np.array([[1, 0, -_LIGHT_XY[0] * 0.014 * unit], [0, 1, -_LIGHT_XY[1] * 0.014 * unit]], np.float32)
    height, width = cover.shape
    cast = cv2.warpAffine(cover, shift, (width, height))
    reduction = max(1, int(unit / 256))  # a wide blur of a large picture takes a minute
    small = cv2.resize(cast, (width // reduction, height // reduction), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), max(0.011 * unit / reduction, 0.5))
    return 1 - 0.8 * cv2.resize(small, (width, height))


def _lay_gasket(radiance: Float32, planes: Float32, path: Float32, unit: float) -> None:
    """A rubber cord of round section in a groove along the zero line of `path`."""
    half = 0.0115 * unit
    across = path / half
    groove = _inside(np.abs(path) - 1.22 * half)
    cord = _inside(np.abs(path) - half, 1.5)
    down, right = np.gradient(path)
    tilt = across * (right * _LIGHT_XY[0] + down * _LIGHT_XY[1])
    sheen = np.exp(-np.square((tilt - 0.42) / 0.22)) * 0.035
    radiance *= _bevel(path, 1.3 * half, 0.3 * half)[..., None]
    radiance *= (1 - 0.93 * groove)[..., None]
    _cover(radiance, cord, _RUBBER + sheen[..., None])
    planes[..., 2] *= 1 - groove


def _window(layout: Layout, centre: tuple[float, float], reach: float) -> _Window:
    height, width = layout.planes.shape[:2]
    centre_x, centre_y = (width - 1) / 2 + centre[0], (height - 1) / 2 + centre[1]
    left, right = max(int(centre_x - reach), 0), min(int(centre_x + reach) + 2, width)
    top, bottom = max(int(centre_y - reach), 0), min(int(centre_y + reach) + 2, height)
    x, y = np.meshgrid(np.arange(left, right) - centre_x, np.arange(top, bottom) - centre_y)
    return _Window(slice(top, bottom), slice(left, right), x.astype(np.float32), y.astype(np.float32))


def _drill(layout: Layout, centre: tuple[float, float], bore: float, chamfer: float) -> None:
    """A hole: a chamfer that is bright where it faces the lamp, then a wall that falls into darkness."""
    window = _window(layout, centre, chamfer * 1.3)
    radius = window.radius
    rise = np.clip(radius / bore, 0, 1)
    lit = -(window.x * _LIGHT_XY[0] + window.y * _LIGHT_XY[1])
    lit = lit / np.maximum(radius, 1) * rise
    sunk = _inside(radius - chamfer)
    burr = _inside(np.abs(radius - chamfer) - (0.06 * chamfer), 2.0)
    patch = layout.radiance[window.rows, window.columns]
    patch *= (1 - 0.25 * burr)[..., None]
    _cover(patch, sunk, (0.60 + 0.46 * lit)[..., None] * _ALUMINIUM)
    wall = 0.28 * np.clip(lit, 0, 1) * np.square(rise)
    _cover(patch, _inside(radius - bore, 1.2), _BORE + wall[..., None] * _ALUMINIUM)
    layout.planes[window.rows, window.columns, 2] *= 1 - sunk


def _turn_boss(layout: Layout, centre: tuple[float, float], unit: float) -> None:
    """A raised ring faced on a lathe: fine circles, the fan-shaped glints they cause, a bore, six threads."""
    outer = 0.165 * unit
    window = _window(layout, centre, outer * 1.15)
    radius, angle = window.radius, np.arctan2(window.y, window.x)
    patch = layout.radiance[window.rows, window.columns]
    behind = np.hypot(window.x - (0.01 * unit), window.y - (0.014 * unit))
    patch *= (1 - 0.45 * _inside(behind - outer, 0.03 * unit))[..., None]
    glint = np.cos(angle - 0.95) ** 4 + 0.25 * np.sin(angle + 0.4) ** 4
    circles = np.sin(radius * (2 * np.pi / max(0.0043 * unit, 2.6)))
    face = (0.62 + 0.85 * glint) * (1 + 0.03 * circles)
    face *= _bevel(radius - outer, -0.007 * unit, 0.007 * unit)
    inside = _inside(radius - outer)
    _cover(patch, inside, face[..., None] * _ALUMINIUM)
    layout.planes[window.rows, window.columns, 2] *= 1 - 0.7 * inside
    _drill(layout, centre, 0.072 * unit, 0.082 * unit)
    for turn in np.arange(6) * (np.pi / 3) + 0.26:
        at = (centre[0] + 0.124 * unit * float(np.cos(turn)), centre[1] + 0.124 * unit * float(np.sin(turn)))
        _drill(layout, at, 0.0105 * unit, 0.0145 * unit)


def _print_all(layout: Layout, unit: float) -> None:
    """Laser marking on the metal, and a printed label with text and a data matrix."""
    _put_text(layout, "FBFT-1036", (-0.150 * unit, -0.262 * unit), 0.200 * unit)
    _stick_label(layout, (0.0, 0.222 * unit), unit)
    _put_text(layout, "HOUSING COVER  07-A", (-0.048 * unit, 0.204 * unit), 0.280 * unit)
    _put_text(layout, "P/N 4417 036 120", (-0.048 * unit, 0.241 * unit), 0.220 * unit)
    _put_matrix(layout, (0.160 * unit, 0.222 * unit), 0.088 * unit)


def _stick_label(layout: Layout, centre: tuple[float, float], unit: float) -> None:
    """A polyester label with rounded corners and a hair of shadow around it."""
    window = _window(layout, centre, 0.24 * unit)
    distance = _rounded_box(window.x, window.y, 0.215 * unit, 0.062 * unit, 0.008 * unit)
    inside = _inside(distance)
    patch = layout.radiance[window.rows, window.columns]
    patch *= (1 - 0.18 * _inside(distance, 8.0))[..., None]
    _cover(patch, inside, (1 + window.y / unit)[..., None] * _LABEL)
    layout.planes[window.rows, window.columns, 2] *= 1 - inside


def _put_text(layout: Layout, text: str, centre: tuple[float, float], length: float) -> None:
    """Add text of a given length in px to the ink; drawn large and reduced, so that strokes are smooth."""
    scale, stroke, margin = 3.0, 8, 20
    (drawn_length, tall), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, stroke)
    canvas = np.zeros((tall + 2 * margin, drawn_length + 2 * margin), np.uint8)
    origin = (margin, margin + tall)
    cv2.putText(canvas, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, stroke, cv2.LINE_AA)
    _stamp(layout, canvas, centre, length / drawn_length)


def _put_matrix(layout: Layout, centre: tuple[float, float], side: float) -> None:
    """Add a 16x16 data matrix to the ink: a solid L, a dashed L, fixed random modules."""
    cells = np.random.default_rng(16).integers(0, 2, (16, 16), np.uint8)
    cells[:, 0], cells[-1, :] = 1, 1
    cells[0, :], cells[:, -1] = np.arange(16) % 2 == 0, np.arange(16) % 2 == 1
    canvas = np.kron(np.pad(cells, 1), np.full((16, 16), _MATRIX_INK, np.uint8))
    _stamp(layout, canvas, centre, side / 256)


def _stamp(layout: Layout, canvas: Uint8, centre: tuple[float, float], scale: float) -> None:
    """Add a drawing, (rows, columns) uint8, to the ink: scaled, and centred to a fraction of a pixel."""
    ink = layout.planes[..., 3]
    height, width = ink.shape
    if scale < 0.5:
        canvas = cv2.GaussianBlur(canvas, (0, 0), 0.4 / scale).astype(np.uint8, copy=False)
    left = (width - 1) / 2 + centre[0] - scale * (canvas.shape[1] - 1) / 2
    top = (height - 1) / 2 + centre[1] - scale * (canvas.shape[0] - 1) / 2
    x0, y0 = int(left), int(top)
    reach = (int(canvas.shape[1] * scale) + 3, int(canvas.shape[0] * scale) + 3)
    placing = np.array([[scale, 0, left - x0], [0, scale, top - y0]], np.float32)
    drawn = cv2.warpAffine(canvas, placing, reach).astype(np.float32) / 255
    target = ink[y0 : y0 + reach[1], x0 : x0 + reach[0]]
    np.maximum(target, drawn[: target.shape[0], : target.shape[1]], out=target)
