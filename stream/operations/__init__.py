"""What the verbs of the command line do with a pipeline that runs elsewhere: look at its state, explain it, and change it."""
