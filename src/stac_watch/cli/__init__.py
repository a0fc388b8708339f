"""Arguments become one call, its answer text and an exit code.

With the runner's `cli` the only package that prints, reads the process's environment and exits. What is printed is composed in
`report` and `cluster`; a verb imports what it needs when it is called, so that `--help` costs nothing.
"""
