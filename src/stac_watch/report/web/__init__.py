"""The page that one works from, and what machines ask for over HTTP: JSON, health, metrics.

Only GET and HEAD are answered; nothing can be changed here, and no secret is shown.
"""
