"""The loop over discover and runs: one observer for each source, one dispatcher, and the pulse that tells how it goes.

Nothing is kept in memory that the ledger does not hold: killed at any moment and started again, it goes on as if nothing had
happened. Whatever one source answers is that source's trouble, never another's.
"""
