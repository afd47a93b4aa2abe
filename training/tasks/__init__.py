"""One file a task: what is predicted, for whom, when."""
