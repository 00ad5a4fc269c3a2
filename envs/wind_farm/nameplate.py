"""The wind farm's nameplate: one group, ``turbine``.

Tags follow the logical nodes of IEC 61400-25-2 (WTUR turbine, WNAC nacelle, WYAW yaw, WROT rotor, WMET met).
``yaw_offset_deg`` is the misalignment that the turbine's own yaw controller is asked to hold: nacelle heading
minus wind direction is minus the offset in FLORIS' sign (a positive FLORIS yaw angle turns the nacelle
counter-clockwise seen from above, against the compass), so offset and FLORIS ``yaw_angles`` are the same number.
"""

from __future__ import annotations

from ..nameplate import Group, Nameplate, Signal

GROUP = "turbine"
YAW_RATE_DEG_PER_S = 0.3
YAW_OFFSET_LIMIT_DEG = 40.0

MEASURED = (
    Signal("wind_speed_mps", "m/s", 0.0, 60.0, "nacelle anemometer", "WNAC.WdSpd"),
    Signal(
        "wind_direction_deg", "deg", 0.0, 360.0, "nacelle heading plus vane, from north", "WMET.HorWdDir", circular=True
    ),
    Signal("nacelle_deg", "deg", 0.0, 360.0, "nacelle heading, from north", "WNAC.Dir", circular=True),
    Signal("power_kw", "kW", -500.0, 30000.0, "active power", "WTUR.W"),
    Signal(
        "turbulence_pu", "pu", 0.0, 1.0, "ten-minute standard deviation over mean of the anemometer", "WMET.TurbInt"
    ),
    Signal("yaw_duty_pu", "pu", 0.0, 1.0, "share of the yaw drive's duty allowance that is used up", "WYAW.DutyUse"),
    Signal("pitch_deg", "deg", -5.0, 95.0, "collective blade pitch", "WROT.BlPthAngVal"),
    Signal("available_pu", "pu", 0.0, 1.0, "1 when the turbine can produce, 0 in an outage", "WTUR.TurSt"),
)
HIDDEN = (
    Signal("free_wind_speed_mps", "m/s", 0.0, 60.0, "undisturbed wind speed at hub height"),
    Signal("free_wind_direction_deg", "deg", 0.0, 360.0, "undisturbed wind direction", circular=True),
    Signal("free_turbulence_pu", "pu", 0.0, 1.0, "undisturbed turbulence intensity"),
    Signal("rotor_wind_speed_mps", "m/s", 0.0, 60.0, "rotor-averaged wind speed"),
    Signal("rotor_turbulence_pu", "pu", 0.0, 2.0, "turbulence intensity at the rotor, wakes included"),
    Signal("yaw_misalignment_deg", "deg", -180.0, 180.0, "true misalignment, FLORIS' sign"),
    Signal("true_power_kw", "kW", -500.0, 30000.0, "active power before the meter's noise"),
    Signal("thrust_pu", "pu", 0.0, 1.5, "thrust coefficient"),
    Signal(
        "load_flap_pu", "pu", 0.0, 20.0, "flapwise damage-equivalent load, relative to the aligned turbine at 8 m/s"
    ),
    Signal("load_tower_pu", "pu", 0.0, 20.0, "tower fore-aft damage-equivalent load, likewise"),
    Signal("yaw_travel_deg", "deg", 0.0, 1e9, "yaw travel since the reset"),
    Signal("aligned_power_kw", "kW", 0.0, 30000.0, "steady power here if every turbine of the farm were aligned"),
)
COMMANDED = (
    Signal(
        "yaw_offset_deg",
        "deg",
        -YAW_OFFSET_LIMIT_DEG,
        YAW_OFFSET_LIMIT_DEG,
        "misalignment set-point for the turbine's yaw controller",
        "WYAW.YwOfsSpt",
        neutral=0.0,
        rate_limit_per_s=YAW_RATE_DEG_PER_S,
    ),
    Signal(
        "power_limit_pu",
        "pu",
        0.1,
        1.0,
        "power set-point as a share of rated",
        "WTUR.DmdW",
        neutral=1.0,
        rate_limit_per_s=0.05,
    ),
)
STATICS = (
    Signal("x_m", "m", -1e6, 1e6, "easting in the local frame"),
    Signal("y_m", "m", -1e6, 1e6, "northing in the local frame"),
    Signal("rotor_diameter_m", "m", 1.0, 500.0, "rotor diameter"),
    Signal("hub_height_m", "m", 1.0, 500.0, "hub height"),
    Signal("rated_power_kw", "kW", 1.0, 50000.0, "rated power"),
)


def make_nameplate(
    site: str,
    period_s: float,
    n_turbines: int,
    static_values: tuple[tuple[float, ...], ...],
    description: str = "",
) -> Nameplate:
    """Nameplate of ``n_turbines``; ``static_values`` is ``[N, 5]``, or empty where layouts differ per replica."""
    group = Group(
        name=GROUP,
        assets=tuple(f"WT{i + 1:02d}" for i in range(n_turbines)),
        measured=MEASURED,
        commanded=COMMANDED,
        hidden=HIDDEN,
        statics=STATICS,
        static_values=static_values,
    )
    return Nameplate(site=site, period_s=period_s, groups=(group,), description=description)
