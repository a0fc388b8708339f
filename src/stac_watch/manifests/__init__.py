"""The manifests: every object that a cluster needs, built here, rendered to YAML that is committed and reviewed.

In: `Settings`, from a configuration. Out: paths and texts (`render.render`). Never: talks to a cluster, or holds a secret.
"""
