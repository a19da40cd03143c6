"""A seed in, a photograph-like picture of a product out, with the exact mask of every defect put on it.

Parts differ as real ones do in front of a real camera: pose, lamp, surface grain, focus, sensor noise.
Knows nothing about models, bundles or cameras.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from fbft_edge.errors import ArgumentError
from fbft_edge.frames.frame import Bool, Float32, Uint8
from fbft_edge.names import size_text
from fbft_edge.synthetic.defects import INK_DARKENS, Canvas, Defect, drawn_defect
from fbft_edge.synthetic.layout import layout_of

GENERATOR_VERSION = 1  # raise it when the same seed gives another picture

_BELT = np.array([0.027, 0.038, 0.037], np.float32)

_FULL_WELL = 9000.0  # electrons at full scale: shot noise of a small industrial sensor
_READ_NOISE = 0.0011  # of full scale
_VISIBLE_LEVELS = 6  # a grey-level change that stands out of the noise, of 255
_MOST_DRAWS = 16  # a chip of 3 px at a rounded corner may show nothing: twice in 3,000 parts


@dataclass(frozen=True, slots=True)
class Part:
    """One rendered part.

    Attributes:
        pixels: (height, width, 3) uint8 RGB, C-contiguous, owned by the part.
        mask: (height, width) bool, True where a defect visibly changed the picture.
        defects: In the order of the sizes that were asked for.
    """

    pixels: Uint8
    mask: Bool
    defects: tuple[Defect, ...]


def render_part(seed: int, height: int = 1036, width: int = 1036, defect_sizes_px: tuple[float, ...] = ()) -> Part:
    """Render one part; the same arguments always give the same part.

    Args:
        seed: Chooses pose, lamp, grain, focus, noise, and the kind and place of each defect. A part with
            defects is the nominal part of the same seed apart from them.
        height: 64 to 8192 px; the product scales with the smaller side.
        width: 64 to 8192 px.
        defect_sizes_px: One defect each: its diameter or length, 2 px to half the smaller side.

    Raises:
        ArgumentError: A size is out of range.
    """
    _check_sizes(height, width, defect_sizes_px)
    scene, defects, sensor = np.random.default_rng(seed).spawn(3)
    canvas = _lit_part(scene, height, width)
    focus = float(scene.uniform(0.45, 0.75))
    mask = np.zeros((height, width), bool)
    placed = [_put(canvas, mask, size_px, defects, focus) for size_px in defect_sizes_px]
    return Part(_exposed(_blurred(canvas.light, focus), sensor), mask, tuple(placed))


def _check_sizes(height: int, width: int, defect_sizes_px: tuple[float, ...]) -> None:
    if not (64 <= height <= 8192 and 64 <= width <= 8192):
        raise ArgumentError(f"cannot render {size_text((height, width))}; both sides must be 64 to 8192")
    largest = min(height, width) / 2
    for size_px in defect_sizes_px:
        if not 2 <= size_px <= largest:
            raise ArgumentError(
                f"a defect of {size_px:g} px does not suit {size_text((height, width))}; use 2 to {largest:g} px"
            )


def _lit_part(rng: np.random.Generator, height: int, width: int) -> Canvas:
    """The part on its belt under the lamp, in linear light, before the lens and the sensor."""
    layout = layout_of(height, width)
    pose = _pose(rng, height, width)
    planes = _moved(layout.planes, pose, (height, width), cv2.BORDER_CONSTANT)
    cover, belt_light, grain, ink = (planes[..., index] for index in range(4))
    light = _moved(layout.radiance, pose, (height, width), cv2.BORDER_REPLICATE)
    surface = (1 + grain * _brush_marks(rng, pose, height, width)) * (1 - INK_DARKENS * ink)
    lamp = _lamp(rng, height, width)
    belt = _belt(rng, height, width) * belt_light
    light *= np.asarray(surface * cover * lamp, np.float32)[..., None]
    light += np.asarray(belt * (1 - cover) * lamp, np.float32)[..., None] * _BELT
    return Canvas(light, planes)


def _moved(planes: Float32, pose: Float32, size: tuple[int, int], border: int) -> Float32:
    """Planes drawn straight, moved to where the pose puts them; beside a constant border lies a lit belt."""
    height, width = size
    moved = cv2.warpAffine(planes, pose, (width, height), borderMode=border, borderValue=(0, 1, 0, 0))
    return np.asarray(moved, np.float32)


def _pose(rng: np.random.Generator, height: int, width: int) -> Float32:
    """(2, 3) matrix that turns the part by up to 1 degree and shifts it by up to 0.4 % of the frame."""
    centre = ((width - 1) / 2, (height - 1) / 2)
    pose = np.asarray(cv2.getRotationMatrix2D(centre, rng.uniform(-1, 1), 1.0), np.float32)
    pose[:, 2] += (rng.uniform(-0.004, 0.004, 2) * min(height, width)).astype(np.float32)
    return pose


def _brush_marks(rng: np.random.Generator, pose: Float32, height: int, width: int) -> Float32:
    """Relative brightness of brushed metal, (height, width): noise drawn out along the part's x axis."""
    stretch = 12
    rows, columns = height + 2 * (height // 20), width // stretch + 8
    noise = rng.standard_normal((rows, columns), np.float32)
    marks = np.asarray(cv2.GaussianBlur(noise, (0, 0), sigmaX=2.5, sigmaY=0.55), np.float32)
    marks *= np.asarray(0.10 + 0.045 * np.abs(marks), np.float32)
    placing = pose @ np.array([[stretch, 0, -3 * stretch], [0, 1, -(height // 20)], [0, 0, 1]], np.float32)
    return _moved(marks, placing, (height, width), cv2.BORDER_REFLECT)


def _belt(rng: np.random.Generator, height: int, width: int) -> Float32:
    """Relative brightness of the conveyor belt, (height, width): a woven texture, worn unevenly."""
    thread = 2 * np.pi / max(0.0085 * min(height, width), 4.0)
    phase_x, phase_y = rng.uniform(0, 2 * np.pi, 2)
    across = np.sin(np.arange(width) * thread + phase_x).astype(np.float32)
    along = np.sin(np.arange(height) * thread + phase_y).astype(np.float32)
    noise = rng.standard_normal((height // 12 + 2, width // 12 + 2), np.float32)
    wear = cv2.resize(cv2.GaussianBlur(noise, (0, 0), 1.5), (width, height))
    return np.asarray(0.34 * np.outer(along, across) + 0.3 * wear + 1, np.float32)


def _lamp(rng: np.random.Generator, height: int, width: int) -> Float32:
    """Light that reaches each pixel, (height, width): drifting power, a slight slope, darker corners."""
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    gain, slope_x, slope_y = rng.uniform((0.94, -0.05, -0.05), (1.06, 0.05, 0.05)).tolist()
    across = gain * (1 + slope_x * x - 0.13 * x * x)
    return np.asarray(across * (1 + slope_y * y - 0.13 * y * y), np.float32)


def _put(canvas: Canvas, mask: Bool, size_px: float, rng: np.random.Generator, focus: float) -> Defect:
    """Put one defect on the canvas and mark the pixels that it visibly changes."""
    for _ in range(_MOST_DRAWS):
        kind, window, changed = drawn_defect(canvas, mask, size_px, rng)
        before = _levels(_blurred(canvas.light[window], focus))
        visible = np.abs(_levels(_blurred(changed, focus)) - before).max(axis=2) >= _VISIBLE_LEVELS
        if visible.any():
            break
    canvas.light[window] = changed
    mask[window] |= visible
    left, top, columns, rows = cv2.boundingRect(visible.astype(np.uint8))
    left, top = left + window[1].start, top + window[0].start
    return Defect(kind, size_px, (left, top, left + columns, top + rows), int(visible.sum()))


def _blurred(light: Float32, focus: float) -> Float32:
    return np.asarray(cv2.GaussianBlur(light, (0, 0), focus), np.float32)


def _levels(light: Float32) -> Float32:
    """Linear light to grey levels 0 to 255 with the camera's square-root response."""
    return np.asarray(np.sqrt(np.clip(light, 0, 1)) * 255, np.float32)


def _exposed(light: Float32, rng: np.random.Generator) -> Uint8:
    """What the sensor makes of the light: shot noise, read noise, the camera's response, 8 bits."""
    noise = rng.standard_normal(light.shape, np.float32)
    noise *= np.sqrt(np.maximum(light, 0) / _FULL_WELL + _READ_NOISE**2)
    return np.asarray(cv2.convertScaleAbs(_levels(light + noise)), np.uint8)
