"""Signals: from a cohort of files to prepared batches.

Data flows through the modules in this order:

- `pack` reads every record of a cohort once and writes a `store`: int16 microvolts in
  memory-mapped shards with an index. `ArrayStore` is a store over records in memory.
- `preparation` is the value that says how a network's input is computed: leads and `steps`. Every
  step is one class in `steps`, with its arithmetic in `filters`; a step of another package is
  registered by `register_step`.
- `prepare` applies a preparation to batches and records.
- `batches` cuts prepared training and evaluation batches from a store; `augment`
  changes training batches, and `random` draws numbers that are independent of the number of
  processes.
- `quality` describes what is unusual about a recording (flat leads, units, mains hum).
"""
