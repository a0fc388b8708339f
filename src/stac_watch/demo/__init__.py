"""A catalog with faults, products that are real Zarr, and the story that shows all of it on one machine.

The catalog is a real HTTP server over SQLite that can misbehave as real STAC servers were seen to; tests use it, too.
"""
