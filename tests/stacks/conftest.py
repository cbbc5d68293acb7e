"""Settings of the stacks' tests."""

collect_ignore = ["keras_program.py"]  # which runs in a process of its own
