"""The evaluation engine: rows in flight, the judge, the store. It never imports a method or a table."""
