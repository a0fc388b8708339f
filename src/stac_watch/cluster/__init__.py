"""An installation on Kubernetes: its manifests, and submit, runs, logs, fetch, clean and doctor for who operates it.

These verbs need a cluster and no ledger; none of them changes a conversion's state. Nothing is removed that could not be told to be
stac-watch's own.
"""
