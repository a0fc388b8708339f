"""A real Kubernetes with Argo Events and Argo Workflows on one bare Linux machine, built from the Go module proxy and Debian.

`python -m harness` is the command line (`make cluster-up`, `cluster-down`, `cluster-status` call it). versions.toml says what is
built, places.py where everything lies, cluster.py what happens in which order.
"""
