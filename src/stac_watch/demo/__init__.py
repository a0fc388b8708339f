"""The demo: a STAC API, Sentinel-2-like products and a scenario, all on this machine.

In: a folder and a port. Out: a catalogue that pystac-client and `stac-watch watch` cannot tell from a real one, whose faults
are switches. Never: reached by the poller in production; it needs the `demo` extra.
"""
