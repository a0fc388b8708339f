"""A STAC API becomes windows that were read completely, whatever the server does.

The client asks, the probe finds out what the server really honours, and the reader bisects until every page is known to be whole.
Documents stay dicts: what they mean is the business of `discover`. A server's own `next` token is never followed on a live window.
"""
