"""Architectures, one a file: `STAGES`, `HEAD`, `INPUT` and `build(num_classes)`; the id is the file's stem."""
