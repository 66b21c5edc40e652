"""Planning and scheduling: a suite's jobs, the order in which they run, and where (this process, or dask workers)."""
