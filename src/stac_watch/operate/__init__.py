"""What a person who runs the cluster asks for: its runs, their logs and packages, cleaning up, and what is wrong.

In: a cluster and a run's name. Out: tables, files, findings. Never: a state of the ledger; these verbs need no poller.
"""
