"""Frames, stills and videos of the emulated cell, rendered in software."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from twinloop.envs.errors import ConfigurationError
from twinloop.envs.robot_cell.config import People, RobotCellConfig
from twinloop.envs.robot_cell.nameplate import ARM
from twinloop.envs.robot_cell.plant import MuJoCoCell
from twinloop.envs.robot_cell.plant_config import RobotCellPlantConfig
from twinloop.envs.robot_cell.video import CellCamera, VideoFile, with_caption, write_stills


@pytest.fixture(scope="module")
def plant() -> MuJoCoCell:
    return MuJoCoCell(RobotCellConfig(people=People()), RobotCellPlantConfig())


def test_a_frame_shows_the_cell_and_changes_as_arms_move_and_cameras_differ(plant: MuJoCoCell) -> None:
    with CellCamera(plant.model, 160, 90) as camera:
        first = camera.frame(plant.data)
        assert first.shape == (90, 160, 3)
        assert np.array_equal(first, camera.frame(plant.data))
        assert len(np.unique(first.reshape(-1, 3), axis=0)) > 200
        shown = camera.frame(plant.data, "near", capsules=True)
        assert not np.array_equal(shown, camera.frame(plant.data, "near"))
        for _ in range(30):
            plant.write({ARM: np.full((2, 6), 0.5)})
            plant.advance()
        moved = np.abs(camera.frame(plant.data).astype(int) - first.astype(int)).max(-1) > 20
        assert 0.002 < moved.mean() < 0.5


def frames() -> list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    return [np.full((36, 64, 3), (k * 40, 80, 200 - k * 40), dtype=np.uint8) for k in range(4)]


def film(file: Path) -> None:
    with VideoFile(file, 10.0) as video:
        for frame in frames():
            video.add(frame)


@pytest.mark.parametrize("suffix", ["webp", "gif"])
def test_videos_come_without_another_program(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"cell.{suffix}"
    film(file)
    with Image.open(file) as image:
        assert image.size == (64, 36)
        assert image.n_frames == 4  # type: ignore[attr-defined]  # of pictures that move
        image.seek(3)
        assert np.abs(np.asarray(image.convert("RGB"), dtype=int) - frames()[3]).max() < 16


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the program ffmpeg is not installed")
def test_an_mp4_is_what_a_player_takes(tmp_path: Path) -> None:
    file = tmp_path / "cell.mp4"
    film(file)
    asked = ["ffprobe", "-v", "error", "-show_streams", "-of", "json", str(file)]
    stream = json.loads(subprocess.run(asked, capture_output=True, check=True, text=True).stdout)["streams"][0]
    assert (stream["codec_name"], stream["width"], stream["height"], stream["nb_frames"]) == ("h264", 64, 36, "4")


def test_what_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"a video is \.mp4, \.webp, \.gif"):
        film(tmp_path / "cell.avi")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"needs the program ffmpeg.*or give \.webp"):
        film(tmp_path / "cell.mp4")


def test_stills_stand_on_one_page_with_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "stills.png"
    write_stills(file, [(f"picture {k}", frame) for k, frame in enumerate(frames()[:3])])
    with Image.open(file) as page:
        pixels = np.asarray(page.convert("RGB"), dtype=int)
    assert np.abs(pixels[20, 20] - frames()[0][0, 0]).max() < 8
    assert pixels.shape[0] > 2 * 36
    assert pixels.shape[1] > 2 * 64
    captioned = with_caption(frames()[0], "1 s")
    assert np.array_equal(captioned[:5], frames()[0][:5])
    assert not np.array_equal(captioned, frames()[0])
