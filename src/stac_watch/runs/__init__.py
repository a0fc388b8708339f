"""A waiting event becomes a run, local or on Argo, and the run becomes a fact.

Dispatch sends what is due; the engines start runs and say what exists now; reconcile turns what they say, and the markers of
outputs, into facts for the ledger. An engine knows no ledger, no catalog and no configuration.
"""
