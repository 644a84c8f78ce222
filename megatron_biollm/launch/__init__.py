"""Before and around a run: its status, the batch script, the checks of the machines."""
