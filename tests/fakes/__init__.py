"""Servers that tests put in the place of a cluster's: the Kubernetes API with Workflows in it, and the EventSource."""
