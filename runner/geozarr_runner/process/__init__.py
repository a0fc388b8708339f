"""The runner as a process: visible progress, an end for a run that stands still, no more threads and memory than it may have."""
