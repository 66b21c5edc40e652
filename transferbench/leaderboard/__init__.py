"""Records -> rows -> tables. A table is a function of committed files: no torch, no engine, no clock."""
