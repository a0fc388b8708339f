"""Item documents become changes, changes verdicts, verdicts ledger rows: by poll and by sweep.

A poll reads what the change stamp says is new; a sweep compares acquisition days with the ledger and finds what no stamp shows.
Both hand their documents to one `Intake`. Discovery never asks an engine: it meets `runs` only in the ledger.
"""
