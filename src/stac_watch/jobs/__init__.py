"""What a person starts and sees end: backfill, replay, audit, prune.

Each plans first, and changes something only when it is told to. They feed the same path as the loop, by other windows or keys.
"""
