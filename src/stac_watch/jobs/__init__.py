"""Work that a person starts and that comes to an end: backfill, replay, audit, retire, prune, rebuild.

Each makes a plan first, and changes something only on request. They feed the same path as the loop, with other windows or keys.
"""
