"""Pictures of a cell: frames rendered off screen, videos and pages of stills.

Frames come from MuJoCo's own renderer in software (OSMesa) unless ``MUJOCO_GL`` says egl or glfw. An ``.mp4`` needs the
program ffmpeg (as Debian has it; it is run, never linked or shipped); ``.webp`` and ``.gif`` need Pillow alone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import mujoco
import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigurationError, PlantError
from .model_xml import CAPSULE_GROUP

Frame = NDArray[np.uint8]
"""``[H, W, 3]``."""
VIDEO_SUFFIXES = (".mp4", ".webp", ".gif")


class CellCamera:
    """Renders one model; a context manager. ``view`` is the name of a camera of the model.

    Raises :class:`PlantError` where nothing can be rendered, with what to install.
    """

    def __init__(self, model: Any, width_px: int = 960, height_px: int = 540, view: str = "front") -> None:
        self._model = model
        self._size = (height_px, width_px)
        self._view = view
        self._context: Any = None

    def __enter__(self) -> Self:
        height, width = self._size
        model = self._model
        model.vis.global_.offwidth, model.vis.global_.offheight = width, height
        try:
            self._context = _context_class()(width, height)
            self._context.make_current()
        except (ImportError, AttributeError, OSError, RuntimeError) as error:
            raise PlantError(
                f"no picture: OpenGL by {_backend()!r}: {type(error).__name__}: {error}; install Debian's libosmesa6, "
                "or set MUJOCO_GL=egl where a graphics card is"
            ) from error
        self._scene = mujoco.MjvScene(model, 2000)
        self._drawer = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._drawer)
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._camera.fixedcamid = model.camera(self._view).id
        self._option = mujoco.MjvOption()
        self._rectangle = mujoco.MjrRect(0, 0, width, height)
        return self

    def __exit__(self, *_: object) -> None:
        self._drawer.free()
        self._context.free()

    def frame(self, data: Any, view: str | None = None, *, capsules: bool = False) -> Frame:
        """The scene of ``data`` now, through the camera ``view``, else the one chosen at first.

        ``capsules``: show what touches, too.
        """
        self._camera.fixedcamid = self._model.camera(view or self._view).id
        self._option.geomgroup[CAPSULE_GROUP] = capsules
        self._context.make_current()
        mujoco.mjv_updateScene(
            self._model, data, self._option, None, self._camera, mujoco.mjtCatBit.mjCAT_ALL.value, self._scene
        )
        mujoco.mjr_render(self._rectangle, self._scene, self._drawer)
        pixels: Frame = np.empty((*self._size, 3), dtype=np.uint8)
        mujoco.mjr_readPixels(pixels, None, self._rectangle, self._drawer)
        return pixels[::-1].copy()


class VideoFile:
    """A video that grows frame by frame, all of one size; a context manager. The suffix of ``path`` says how.

    ``quality`` is of H.264 (0 best, 51 worst). An .mp4 goes straight to ffmpeg; the others hold their frames until the
    end. Raises :class:`ConfigurationError` for another suffix, and for .mp4 where ffmpeg isn't installed;
    :class:`PlantError` when ffmpeg fails.
    """

    def __init__(self, path: Path, fps: float, quality: int = 26) -> None:
        if path.suffix not in VIDEO_SUFFIXES:
            raise ConfigurationError(f"{path}: a video is {', '.join(VIDEO_SUFFIXES)}, by its suffix")
        self._path, self._fps, self._quality = path, fps, quality
        self._program = shutil.which("ffmpeg") or ""
        if path.suffix == ".mp4" and not self._program:
            raise ConfigurationError(f"{path}: needs the program ffmpeg, which isn't installed; or give .webp")
        self._process: subprocess.Popen[bytes] | None = None
        self._images: list[Any] = []

    def __enter__(self) -> Self:
        return self

    def add(self, frame: Frame) -> None:
        """The next frame."""
        if self._path.suffix != ".mp4":
            from PIL import Image

            self._images.append(Image.fromarray(frame))
            return
        if self._process is None:
            self._process = subprocess.Popen(self._command(frame), stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self._process.stdin is not None  # a pipe was asked for
        with contextlib.suppress(BrokenPipeError):  # it has ended; its own words, at the end, say why
            self._process.stdin.write(frame.tobytes())

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._process is not None:
            said = self._process.communicate()[1]
            if self._process.returncode and kind is None:
                told = said.decode(errors="replace").strip()
                raise PlantError(f"{self._path}: ffmpeg ended with {self._process.returncode}: {told}")
        elif self._images and kind is None:
            options: dict[str, Any] = (
                {"quality": 60, "method": 4} if self._path.suffix == ".webp" else {"optimize": True}
            )
            options |= {"duration": round(1000 / self._fps), "loop": 0}
            self._images[0].save(self._path, save_all=True, append_images=self._images[1:], **options)

    def _command(self, frame: Frame) -> list[str]:
        height, width = frame.shape[:2]
        command = [self._program, "-hide_banner", "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24"]
        command += [
            "-s",
            f"{width}x{height}",
            "-r",
            f"{self._fps:g}",
            "-i",
            "-",
            "-c:v",
            "libx264",
            "-preset",
            "medium",
        ]
        return [*command, "-crf", f"{self._quality}", "-pix_fmt", "yuv420p", "-movflags", "+faststart", str(self._path)]


def write_stills(path: Path, stills: Sequence[tuple[str, Frame]], columns: int = 2) -> None:
    """One page (.png) of pictures with a line of text under each."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = stills[0][1].shape[:2]
    margin, line = 16, 40
    rows = -(-len(stills) // columns)
    page = Image.new("RGB", (columns * (width + margin) + margin, rows * (height + line + margin) + margin), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=22)
    for k, (text, frame) in enumerate(stills):
        left = margin + (k % columns) * (width + margin)
        top = margin + (k // columns) * (height + line + margin)
        page.paste(Image.fromarray(frame), (left, top))
        draw.text((left, top + height + 6), text, fill=(40, 44, 52), font=font)
    page.quantize(256).save(path, optimize=True)


def with_caption(frame: Frame, text: str) -> Frame:
    """A copy with a line of text over a dark band at the bottom."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.fromarray(frame)
    draw = ImageDraw.Draw(image, "RGBA")
    size = max(12, frame.shape[0] // 30)
    draw.rectangle((0, image.height - 2 * size, image.width, image.height), fill=(20, 24, 30, 170))
    draw.text((size, image.height - 1.65 * size), text, fill=(240, 240, 240), font=ImageFont.load_default(size=size))
    return np.asarray(image, dtype=np.uint8)


def _backend() -> str:
    chosen = os.environ.get("MUJOCO_GL", "").lower()
    return chosen if chosen in ("egl", "glfw") else "osmesa"


def _context_class() -> Any:
    backend = _backend()
    if backend == "egl":
        from mujoco.egl import GLContext
    elif backend == "glfw":
        from mujoco.glfw import GLContext
    else:
        from mujoco.osmesa import GLContext
    return GLContext
