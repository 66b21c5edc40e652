"""The Python functions beside `evaluate`, and what they return: reports, data sets, trainings, results as frames."""
