"""Every object that a cluster needs, built here: rendered to YAML, or written as the templates of a Helm chart.

`facts` turns a configuration and the values into `Settings`; the builders make objects of these; `render` and `chart` write them.
Hera's models write the Workflow kinds; the rest are plain documents. Nothing here talks to a cluster or holds a secret.
"""
