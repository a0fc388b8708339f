"""Converts one Sentinel-2 Zarr product to GeoZarr."""
