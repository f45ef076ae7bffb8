"""A lab's own files to a cohort."""
