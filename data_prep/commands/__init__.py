"""One module per command: its options, its help and how it is run. What it does is imported when it runs."""
