"""A done conversion becomes an item of a target catalog, sent, read back and compared.

The publication waits in the ledger since the conversion's last move; a round sends what is due, many at once, and writes down what
became of each. A catalog that does not answer is left alone, and nothing follows from that but a later time.
"""
