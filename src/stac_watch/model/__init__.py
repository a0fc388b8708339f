"""The words: errors, event, identity, item, product, outcome, states, patience. Pure, and shared with the runner.

Everything that two stages, or both programs, must understand alike is defined here and nowhere else. Nothing here does I/O, asks
the clock or draws a random number, and of other people's packages it imports `cloudevents` alone.
"""
