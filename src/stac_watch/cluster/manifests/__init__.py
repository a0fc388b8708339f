"""Every object that a cluster needs, built here, rendered to YAML that is committed and reviewed.

Hera's models write the Workflow kinds; the rest are plain documents. Nothing here talks to a cluster or holds a secret.
"""
