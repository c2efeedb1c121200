"""The command ``loan-predictor``: work on files, for which no service has to run."""
