"""Models: cards, weights, architectures, and the loaders that turn an id into a network of [0,1] pixels."""
