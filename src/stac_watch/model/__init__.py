"""The words: errors, event, identity, item, product, outcome, states, patience. Pure, and shared with the runner.

Everything that two stages, or both programs, must understand alike is defined here and nowhere else. Nothing here asks the clock
or draws a random number; `files`, which replaces a file at once, is the only module that touches a disk; and of other people's
packages `cloudevents` alone is imported.
"""
