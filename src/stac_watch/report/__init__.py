"""What people and machines are shown: status, items, explain, health, metrics; as tables, JSON and a web page.

A question and its answer stand in one module: it reads the ledger once and the rest of it is pure. Nothing here writes, and nothing
asks an engine or a catalog, so that it works beside a watcher and without one.
"""
