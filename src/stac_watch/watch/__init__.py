"""The loop over discover and runs: one observer for each source, one dispatcher, and the pulse that says how it is doing.

Nothing is kept in memory that the ledger does not hold: killed at any moment and started again, it continues as if nothing had
happened. Whatever one source answers is that source's trouble, never another's.
"""
