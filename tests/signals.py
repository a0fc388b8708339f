"""Ctrl-C for the processes that tests start, also where the tests themselves must not hear it."""

import signal


def let_children_hear_ctrl_c() -> None:
    """Makes every process that is started from now on begin with the usual SIGINT.

    A shell starts what runs in the background with SIGINT ignored. That is inherited through every exec, and Python then installs
    no handler of its own: a test that presses Ctrl-C would wait forever. What is caught is not inherited; so it is caught here,
    and nothing follows: the tests go on when Ctrl-C is pressed for somebody else, as they did.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: None)
