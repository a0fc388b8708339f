"""Where the sun stands. Pure; good to a few hundredths of a degree between 1950 and 2050, refraction left out.

Source: The Astronomical Almanac's low-precision formulas for the sun, as J. J. Michalsky gives them (Solar Energy 40, 1988).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import asin, atan2, cos, degrees, radians, sin

_EPOCH = datetime(2000, 1, 1, 12, tzinfo=UTC)


def position(moment: datetime, longitude: float, latitude: float) -> tuple[float, float]:
    """Returns the sun's elevation above the horizon and its azimuth, clockwise from north; all angles in degrees."""
    days = (moment - _EPOCH) / timedelta(days=1)
    anomaly = radians(357.528 + 0.9856003 * days)
    ecliptic = radians(280.460 + 0.9856474 * days + 1.915 * sin(anomaly) + 0.020 * sin(2 * anomaly))
    tilt = radians(23.439 - 0.0000004 * days)
    ascension = atan2(cos(tilt) * sin(ecliptic), cos(ecliptic))
    declination = asin(sin(tilt) * sin(ecliptic))
    sidereal = radians(280.46062 + 360.98564737 * days + longitude)  # degrees of the local mean one
    hour, north = sidereal - ascension, radians(latitude)
    elevation = asin(sin(declination) * sin(north) + cos(declination) * cos(north) * cos(hour))
    azimuth = atan2(-sin(hour) * cos(declination), sin(declination) * cos(north) - cos(declination) * sin(north) * cos(hour))
    return degrees(elevation), degrees(azimuth) % 360


def when(azimuth: float, since: datetime, longitude: float, latitude: float, span: timedelta) -> datetime | None:
    """Returns when the sun first has an azimuth, to a few seconds, within a span; None when it has not."""
    step = timedelta(seconds=20)
    moments = [since + step * n for n in range(span // step + 1)]
    apart = [(abs(turned(position(moment, longitude, latitude)[1] - azimuth)), moment) for moment in moments]
    nearest, moment = min(apart)
    return moment if nearest <= 1.0 else None  # a degree; at 20 s the sun turns by that much only near the zenith


def turned(angle: float) -> float:
    """Returns a difference of directions as -180 to 180 degrees."""
    return (angle + 180) % 360 - 180
