"""The wind series that ship, their reader's errors, and the free wind between samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from twinloop.envs.errors import ConfigurationError
from twinloop.envs.wind_farm.inflow_series import (
    FreeWind,
    Gusts,
    WindSeries,
    constant_series,
    load_series,
    series_names,
)

HEADER = "time_s,wind_speed_mps,wind_direction_deg,turbulence_pu\n"
STILL = Gusts(speed_share=0.0, direction_std_deg=0.0)


def written(folder: Path, text: str) -> str:
    path = folder / "wind.csv"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_shipped_series_are_what_their_readme_says() -> None:
    assert series_names() == ("day", "month")
    day, month = load_series("day"), load_series("month")
    assert day.duration_s == 86_400.0
    assert month.duration_s == 30 * 86_400.0
    assert (day.wind_speed_mps.min(), day.wind_speed_mps.max()) == pytest.approx((4.74, 9.20))
    # first sample of py-wake's series: 4.46994 m/s, 311.546 deg, standard deviation 0.359347 m/s
    assert month.wind_speed_mps[0] == pytest.approx(4.46994, abs=0.005)
    assert month.wind_direction_deg[0] == pytest.approx(311.546, abs=0.05)
    assert month.turbulence_pu[0] == pytest.approx(0.359347 / 4.46994, abs=5e-4)


def test_the_day_has_wakes_to_steer() -> None:
    day = load_series("day")
    assert np.mean((day.wind_speed_mps > 6.0) & (day.wind_speed_mps < 11.0)) > 0.9
    assert day.wind_direction_deg.max() - day.wind_direction_deg.min() > 60.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "time_s,wind_speed,wind_direction_deg,turbulence_pu\n0,8,270,0.1\n",
            "row 1: column 'wind_speed_mps' is missing",
        ),
        (HEADER + "0,8,270,0.1\n600,nan,270,0.1\n", r"row 3: column 'wind_speed_mps': 'nan'"),
        (HEADER + "0,8,270,0.1\n600,fast,270,0.1\n", r"row 3: column 'wind_speed_mps': 'fast'"),
        (HEADER + "0,8,270,0.1\n600,8,270\n", r"row 3: column 'turbulence_pu': ''"),
        (HEADER + "0,8,270,9\n600,8,270,0.1\n", r"row 2: column 'turbulence_pu': '9'; needed is .* in \[0, 1\]"),
        (HEADER + "0,8,270,0.1\n600,8,270,0.1\n600,8,270,0.1\n", "row 4: column 'time_s': 600 does not exceed"),
        (HEADER + "0,8,270,0.1\n", "at least two"),
        ("", "row 1: column 'time_s' is missing"),
    ],
)
def test_a_wrong_csv_is_named_by_file_row_and_column(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigurationError, match=message) as caught:
        load_series(path)
    assert str(caught.value).startswith(path)


def test_an_unknown_series_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'day'"):
        load_series("days")
    with pytest.raises(ConfigurationError, match="does not exist"):
        load_series(str(tmp_path / "none.csv"))


def test_without_gusts_the_wind_passes_through_the_samples_and_the_short_way_past_north() -> None:
    series = WindSeries(
        "t", np.array([0.0, 600.0]), np.array([8.0, 10.0]), np.array([350.0, 20.0]), np.array([0.1, 0.2])
    )
    wind = FreeWind(series, STILL, seed=0)
    speed, direction, turbulence = wind.at(np.array([-50.0, 0.0, 200.0, 600.0]))
    np.testing.assert_allclose(speed, [8.0, 8.0, 8.0 + 2.0 / 3.0, 10.0])
    np.testing.assert_allclose(direction, [350.0, 350.0, 0.0, 20.0], atol=1e-9)
    np.testing.assert_allclose(turbulence, [0.1, 0.1, 0.1 + 0.1 / 3.0, 0.2])


def test_after_its_end_the_series_begins_again() -> None:
    wind = FreeWind(load_series("day"), Gusts(), seed=1)
    np.testing.assert_allclose(wind.at(np.array([1234.5])), wind.at(np.array([1234.5 + 86_400.0 + 600.0])))


def test_gusts_have_the_declared_deviation_and_correlation_time() -> None:
    series = constant_series(8.0, 270.0, 0.1)
    long = WindSeries("t", np.linspace(0, 2e6, 2), *(np.repeat(v[:1], 2) for v in (
        series.wind_speed_mps, series.wind_direction_deg, series.turbulence_pu)))  # fmt: skip
    gusts = Gusts(speed_share=0.5, speed_time_s=100.0, direction_std_deg=2.0, direction_time_s=200.0)
    speed, direction, _ = FreeWind(long, gusts, seed=2).at(np.arange(0.0, 2e6, 5.0))
    samples = 2e6 / (2 * 200.0)  # about independent ones
    for values, std, memory_s in ((speed - 8.0, 0.5 * 0.1 * 8.0, 100.0), (direction - 270.0, 2.0, 200.0)):
        assert values.std() == pytest.approx(std, rel=3.0 / np.sqrt(2.0 * samples))
        lag = int(memory_s / 5.0)
        assert np.corrcoef(values[:-lag], values[lag:])[0, 1] == pytest.approx(np.exp(-1.0), abs=3.0 / np.sqrt(samples))


def test_wind_depends_on_seed_and_time_alone() -> None:
    series, times = load_series("day"), np.linspace(0.0, 80_000.0, 500)
    one, two = FreeWind(series, Gusts(), 5), FreeWind(series, Gusts(), 5)
    whole = one.at(times)
    parts = [np.concatenate(p) for p in zip(two.at(times[250:]), two.at(times[:250]), strict=True)]
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(a, np.roll(b, 250))
    assert not np.array_equal(whole[0], FreeWind(series, Gusts(), 6).at(times)[0])
