"""What a command does: run a suite, evaluate a model, train a victim, publish a board."""
