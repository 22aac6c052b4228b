"""The SQL store: the only truth about sweeps, trials, costs and runs to deliver."""
