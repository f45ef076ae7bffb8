"""Make, split and check cohorts of labelled volumes: `python -m data_prep --help`."""
