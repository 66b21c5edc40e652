"""Records: what was measured of a victim, how results become one, and an independent verification."""
