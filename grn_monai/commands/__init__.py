"""The subcommands of ``grn-monai``: options and output; the work is done elsewhere, imported when it is needed."""
