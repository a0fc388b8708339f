"""Watches a STAC API and turns each new Sentinel-2 Zarr item into exactly one verified GeoZarr."""
