"""An installation on Kubernetes: its manifests, and submit, runs, logs, fetch, clean and doctor for whoever operates it.

These verbs need a cluster and no ledger; none of them changes a conversion's state. Nothing is removed unless its labels say that
it is stac-watch's own.
"""
