"""Records of measurements: their schema, their assembly from jobs' results, their independent verification."""
