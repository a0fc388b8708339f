"""A verified output gets its package, report and item, its final name, and last of all its marker."""
