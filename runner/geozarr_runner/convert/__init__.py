"""The staged product becomes GeoZarr: eopf-geozarr's writer with its known faults worked around, and the fast engine beside it."""
