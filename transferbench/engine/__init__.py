"""The evaluation engine: runs chains of attacks against a network and judges their points."""
