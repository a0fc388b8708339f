"""Items, conversions, events, outbox, cursors: the only package that speaks SQL, in parts around one session.

Every query is a named method, and every public method is one transaction. The ledger applies what `model.states` says follows from
a fact; it decides nothing by itself, reads no clock, and knows neither catalog nor engine.
"""
