"""Jobs: one frozen class per kind of work. A suite, `eval`, `train` and `evaluate(store=)` plan the same classes.

A job's `name` is the hash of its specification and its inputs' names; its key (store) adds the content that decides the
result: hashes of weights and data, versions, device kind, precision.
"""
